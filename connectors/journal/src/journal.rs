//! The journal on disk: [`DiskJournal`].

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use forebay_api::{
    Blame, Destination, Fault, Finding, Journal, JournalConnector, JournalSetting, JournalStatus, Mistake,
    Position, ReaderSetting, Since, Source,
};

use crate::config::DiskConfig;
use crate::destination::JournalDestination;
use crate::fault::judge;
use crate::folder::{ABOUT, Folder};
use crate::locate;
use crate::log::Log;
use crate::position;
use crate::reader::JournalReader;
use crate::readers::Readers;
use crate::store::Store;
use crate::writer::Writer;

/// The log of one source, in files.
#[derive(Debug)]
pub struct DiskJournal {
    opener: Arc<Opener>,
}

/// Opens the journal when it is first used, and closes it.
#[derive(Debug)]
pub(crate) struct Opener {
    config: DiskConfig,
    setting: JournalSetting,
    opened: Mutex<Option<Arc<Opened>>>,
    /// Held by whoever opens or closes it.
    turn: tokio::sync::Mutex<()>,
    /// Why it could not be opened.
    trouble: Mutex<Option<String>>,
    /// Readers that were built before it was opened: they get their places then, before any of them lets something be
    /// deleted.
    awaited: Mutex<Vec<ReaderSetting>>,
}

/// An open journal.
#[derive(Debug)]
pub(crate) struct Opened {
    /// What readers use.
    pub(crate) store: Arc<Store>,
    /// What the destination uses.
    pub(crate) writer: Writer,
}

impl DiskJournal {
    /// Touches nothing.
    pub(crate) fn new(config: DiskConfig, setting: JournalSetting) -> DiskJournal {
        let opener = Opener {
            config,
            setting,
            opened: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            trouble: Mutex::default(),
            awaited: Mutex::default(),
        };
        DiskJournal { opener: Arc::new(opener) }
    }
}

impl Opener {
    fn current(&self) -> Option<Arc<Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens it, if it is not; then this does not wait.
    pub(crate) async fn opened(&self) -> Result<Arc<Opened>, Fault> {
        if let Some(opened) = self.current() {
            return Ok(opened);
        }
        let _turn = self.turn.lock().await;
        if let Some(opened) = self.current() {
            return Ok(opened);
        }
        let (config, setting) = (self.config, self.setting.clone());
        let doing = format!("opening the journal of `{}`", self.setting.source);
        let awaited = std::mem::take(&mut *self.awaited.lock().unwrap_or_else(PoisonError::into_inner));
        let again = awaited.clone();
        let opened = blocking(&doing, move || {
            let log = Log::open(config, &setting)?;
            log.store().await_readers(&awaited)?;
            Ok(Opened { store: log.store().clone(), writer: Writer::start(log)? })
        });
        let opened = opened.await.map(Arc::new);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) =
            opened.as_ref().err().map(ToString::to_string);
        let opened = opened.inspect_err(|_| {
            self.awaited.lock().unwrap_or_else(PoisonError::into_inner).extend(again);
        })?;
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened.clone());
        Ok(opened)
    }

    /// Closes it, if it is open.
    pub(crate) async fn close(&self) -> Result<(), Fault> {
        let _turn = self.turn.lock().await;
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        match opened {
            Some(opened) => opened.writer.close().await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Journal for DiskJournal {
    fn writer(&self) -> Arc<dyn Destination> {
        Arc::new(JournalDestination { opener: self.opener.clone() })
    }

    fn reader(&self, setting: ReaderSetting) -> Box<dyn Source> {
        if self.opener.current().is_none() {
            self.opener.awaited.lock().unwrap_or_else(PoisonError::into_inner).push(setting.clone());
        }
        Box::new(JournalReader::new(self.opener.clone(), setting))
    }

    async fn locate(&self, since: &Since) -> Result<Position, Fault> {
        let (store, since) = (self.opener.opened().await?.store.clone(), since.clone());
        let doing = format!("looking for a position in the journal of `{}`", self.opener.setting.source);
        blocking(&doing, move || {
            let at = locate::locate(&store, &since)?;
            Ok(position::write(store.identity, at))
        })
        .await
    }

    async fn end(&self) -> Result<Position, Fault> {
        let store = self.opener.opened().await?.store.clone();
        let end = *store.durable.borrow();
        Ok(position::write(store.identity, end))
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn forget(&self, reader: &str) -> Result<(), Fault> {
        let (store, reader) = (self.opener.opened().await?.store.clone(), reader.to_owned());
        let doing = format!("forgetting `{reader}` in the journal of `{}`", self.opener.setting.source);
        blocking(&doing, move || store.forget(&reader)).await
    }

    fn status(&self) -> JournalStatus {
        match self.opener.current() {
            Some(opened) => opened.store.status(),
            None => JournalStatus {
                max_bytes: Some(self.opener.config.max_bytes.get()),
                trouble: self.opener.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
                ..JournalStatus::default()
            },
        }
    }
}

#[async_trait]
impl JournalConnector for DiskJournal {
    const TYPE: &'static str = "disk";
    const ABOUT: &'static str = "a log in files below `data_dir`, synced before it counts";
    type Config = DiskConfig;

    fn build(config: DiskConfig, setting: &JournalSetting) -> Result<Arc<dyn Journal>, Vec<Mistake>> {
        let mistakes = config.mistakes();
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Arc::new(DiskJournal::new(config, setting.clone())))
    }

    async fn check(_: DiskConfig, setting: &JournalSetting) -> Vec<Finding> {
        // Only small files are read; a network file system that hangs would hang the daemon just as well.
        let folder = Folder::of(setting);
        let path = folder.path().display();
        let found = folder.has_journal().and_then(|there| match there {
            true => folder.identity(&setting.source).and_then(|_| Readers::load(&folder)).map(|_| true),
            false => Ok(false),
        });
        match found {
            Ok(true) => vec![Finding::good(format!("the journal in `{path}` can be read"))],
            Ok(false) => vec![Finding::good(format!("a journal will be made in `{path}`"))],
            Err(fault) => vec![Finding::fault(&fault)],
        }
    }

    fn left_behind(
        setting: &JournalSetting,
        stored: &BTreeMap<String, Position>,
    ) -> Result<Option<String>, Fault> {
        let folder = Folder::of(setting);
        if !folder.has_journal()? {
            return Ok(None);
        }
        // What another daemon writes meanwhile could look like damage.
        let _lock = folder.lock()?;
        let identity = folder.identity(&setting.source)?;
        let readers = Readers::load(&folder)?;
        let end = locate::events_end_on_disk(&folder, setting, Store::highest_place(&readers))?;
        // A place is what is surely read; the position that is stored is as far or further.
        let read = |name: &str, place: u64| {
            let stored = stored.get(name).and_then(|position| position::read(identity, position).ok());
            stored.unwrap_or(place).max(place)
        };
        let behind: Vec<String> = readers
            .all()
            .filter(|(name, place)| !place.parked && read(name, place.at) < end)
            .map(|(name, place)| format!("`{name}` ({} bytes)", end - read(name, place.at)))
            .collect();
        Ok((!behind.is_empty()).then(|| {
            format!(
                "the journal in `{}` holds what these have not read yet: {}",
                folder.path().display(),
                behind.join(", ")
            )
        }))
    }

    fn discard(setting: &JournalSetting) -> Result<bool, Fault> {
        let folder = Folder::of(setting);
        if !folder.has_journal()? {
            return Ok(false);
        }
        let _lock = folder.lock()?;
        let path = folder.path();
        let judged = |error| judge(format!("removing `{}`", path.display()), error);
        // What says whose it is goes first: without it the rest is no journal.
        fs::remove_file(folder.file(ABOUT)).map_err(judged)?;
        folder.sync().map_err(judged)?;
        fs::remove_dir_all(path).map_err(judged)?;
        Ok(true)
    }

    fn salvage(setting: &JournalSetting) -> Result<Vec<String>, Fault> {
        let gaps = crate::salvage::salvage(setting)?;
        Ok(gaps.into_iter().map(|gap| gap.to_string()).collect())
    }
}

/// Runs what blocks where that harms nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    doing: &str,
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(died) => Err(Fault::fatal(doing, Blame::Defect, died)),
    }
}
