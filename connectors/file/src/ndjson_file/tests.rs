//! What a file keeps, whatever happens to it.

use std::path::PathBuf;

use forebay_api::Blame;
use forebay_api::units::{ByteSize, Period};
use tempfile::TempDir;

use super::*;
use crate::config::RotateConfig;
use crate::tail;

struct Place(TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("deep/down/out.ndjson")
    }

    /// A file with this in it already.
    fn with(content: &[u8]) -> Place {
        let place = Place::new();
        fs::create_dir_all(place.path().parent().unwrap()).unwrap();
        fs::write(place.path(), content).unwrap();
        place
    }

    fn file(&self, rotate: RotateConfig) -> NdjsonFile {
        NdjsonFile::new(FileConfig { path: self.path(), rotate, fsync: Fsync::Batch })
    }

    fn plain(&self) -> NdjsonFile {
        self.file(RotateConfig::default())
    }

    fn content(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    /// Every file of the folder by name, with its content.
    fn all(&self) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = fs::read_dir(self.path().parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        all.sort();
        all
    }
}

fn write(file: &mut NdjsonFile, records: &[&str]) {
    file.append(records.iter().map(|record| record.as_bytes())).unwrap();
    file.sync().unwrap();
}

#[test]
fn records_are_lines_and_a_new_instance_appends() {
    let place = Place::new();
    write(&mut place.plain(), &["{}", "{\"a\":1}"]);
    write(&mut place.plain(), &["{\"b\":2}"]);
    assert_eq!(place.content(), "{}\n{\"a\":1}\n{\"b\":2}\n");
    assert_eq!(place.all().len(), 1, "no file beside it");
}

#[test]
fn a_line_end_inside_a_record_becomes_a_space() {
    let place = Place::new();
    write(&mut place.plain(), &["{\"a\":\r\n [1,\n2]}"]);
    assert_eq!(place.content(), "{\"a\":   [1, 2]}\n");
}

#[test]
fn a_torn_last_line_is_cut_off() {
    for (before, after) in [
        ("{}\n{\"a\":", "{}\n"),
        ("{\"a\":", ""),
        ("{}\n", "{}\n"),
        ("", ""),
        ("{}\n\0\0\0\0", "{}\n"),
        ("{}\n{\"a\":\0\0\0\"}\n{}\n{\"b\"", "{}\n"),
        ("\0\0", ""),
    ] {
        let place = Place::with(before.as_bytes());
        write(&mut place.plain(), &["{\"new\":1}"]);
        assert_eq!(place.content(), format!("{after}{{\"new\":1}}\n"), "{before:?}");
    }
}

#[test]
fn a_torn_line_may_be_longer_than_any_block() {
    let whole = "{\"text\":\"".to_owned() + &"x".repeat(3 * tail::BLOCK_BYTES) + "\"}\n";
    let torn = "{\"text\":\"".to_owned()
        + &"y".repeat(usize::try_from(tail::TAIL_BYTES).unwrap() + tail::BLOCK_BYTES);
    let place = Place::with((whole.clone() + &torn).as_bytes());
    place.plain().open().unwrap();
    assert_eq!(place.content(), whole);
}

#[test]
fn a_file_of_another_kind_is_refused_and_left_alone() {
    let place = Place::with(b"name,price\nriver,5");
    let fault = place.plain().open().unwrap_err();
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{fault}");
    assert_eq!(place.content(), "name,price\nriver,5");
}

#[test]
fn two_writers_on_one_path_are_refused() {
    let place = Place::new();
    let mut first = place.plain();
    first.open().unwrap();
    let fault = place.plain().open().unwrap_err();
    assert!(matches!(fault, Fault::Fatal { blame: Blame::Outside, .. }), "{fault}");
    assert!(fault.to_string().contains("another process or destination writes to it"), "{fault}");
    drop(first);
    place.plain().open().unwrap();
}

#[test]
fn a_file_is_rotated_before_it_grows_past_its_size() {
    let place = Place::new();
    let mut file = place.file(RotateConfig { bytes: Some(ByteSize::bytes(20)), age: None });
    write(&mut file, &["{\"a\":1}", "{\"a\":2}", "{\"a\":3}", "{\"large\":\"larger than 20\"}", "{\"a\":4}"]);
    let all = place.all();
    let contents: Vec<&str> = all.iter().map(|(_, content)| content.as_str()).collect();
    assert_eq!(
        contents,
        ["{\"a\":1}\n{\"a\":2}\n", "{\"a\":3}\n", "{\"large\":\"larger than 20\"}\n", "{\"a\":4}\n"]
    );
    assert_eq!(all[3].0, "out.ndjson");
    for (index, (name, _)) in all[..3].iter().enumerate() {
        assert!(
            name.starts_with("out-2") && name.ends_with(&format!("Z-00000{}.ndjson", index + 1)),
            "{name}"
        );
    }
}

#[test]
fn an_old_file_is_rotated_and_an_empty_one_never() {
    let place = Place::new();
    let mut file = place.file(RotateConfig { bytes: None, age: Some(Period::millis(1)) });
    file.open().unwrap();
    assert_eq!(file.time_left(), None);
    write(&mut file, &["{\"a\":1}"]);
    while file.time_left() != Some(Duration::ZERO) {
        std::thread::yield_now();
    }
    file.rotate_if_old().unwrap();
    assert_eq!(place.all().len(), 2);
    assert_eq!(place.content(), "");
    file.rotate_if_old().unwrap();
    assert_eq!(place.all().len(), 2);
}

#[test]
fn what_was_not_synced_is_cut_away_after_a_failure() {
    let place = Place::new();
    let mut file = place.plain();
    write(&mut file, &["{\"kept\":1}"]);
    file.append([b"{\"doubtful\":1}".as_slice()].into_iter()).unwrap();
    file.distrust();
    assert!(!file.is_open());
    assert_eq!(place.content(), "{\"kept\":1}\n{\"doubtful\":1}\n");
    write(&mut file, &["{\"again\":1}"]);
    assert_eq!(place.content(), "{\"kept\":1}\n{\"again\":1}\n");
}

#[test]
fn a_file_that_somebody_moved_away_is_begun_anew() {
    let place = Place::new();
    let mut file = place.plain();
    write(&mut file, &["{\"a\":1}"]);
    file.append([b"{\"a\":2}".as_slice()].into_iter()).unwrap();
    fs::rename(place.path(), place.path().with_file_name("moved")).unwrap();
    write(&mut file, &["{\"a\":3}"]);
    assert_eq!(place.content(), "{\"a\":3}\n");
    assert_eq!(place.all()[0], ("moved".to_owned(), "{\"a\":1}\n{\"a\":2}\n".to_owned()));
}

#[test]
fn a_folder_or_a_device_is_a_mistake_in_the_configuration() {
    let place = Place::new();
    fs::create_dir_all(place.path()).unwrap();
    for path in [place.path(), PathBuf::from("/dev/null"), PathBuf::from("/dev/full")] {
        let config = FileConfig { path, rotate: RotateConfig::default(), fsync: Fsync::Never };
        let fault = NdjsonFile::new(config).open().unwrap_err();
        assert!(matches!(fault, Fault::Fatal { blame: Blame::Configuration, .. }), "{fault}");
    }
}
