//! Is the suite honest? A destination in memory passes every check; the same with one flaw is caught, flaw by
//! flaw, by the check that is there for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::{CHECKS, DestinationRig, Disturbance, Rig, check, conform};
use crate::delivery::{Delivery, Rejection};
use crate::destination::Destination;
use crate::fault::{Blame, Fault};
use crate::mark::{Mark, StreamId};
use crate::testing::{Check, Exceptions, Failure};

/// What is wrong with a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Nothing,
    LosesOne,
    WritesTwice,
    Reorders,
    WritesAsciiOnly,
    SkipsKeyless,
    AcceptsBeforeItIsDurable,
    AcceptsAllAfterAFault,
    GoesOnBehindAFailedRecord,
    CallsAnOutageFatal,
    HangsInOpen,
    LandsLate,
    KeepsTheDelivery,
    ForgetsMarks,
    HoldsTooMuch,
    MixesStreams,
    CutsLargeRecords,
    DropsPoison,
    StoresPoison,
    RejectsNeighbours,
    RejectsMutely,
    FailsToClose,
}

/// The largest record that the memory takes.
const LIMIT: usize = 1_000_000;

/// What the memory refuses.
const REFUSED: &str = "\"\\u0000\"";

/// In how many pieces a large delivery becomes durable, and how many records a piece of a small one has.
const PIECES: usize = 20;
const PIECE: usize = 25;

#[derive(Default)]
struct Disk {
    records: Vec<Vec<u8>>,
    marks: HashMap<StreamId, Mark>,
    disturbed: Option<Disturbance>,
    /// Counts writes, so that flaws can strike now and then.
    writes: usize,
}

struct Memory {
    disk: Arc<Mutex<Disk>>,
    flaw: Flaw,
    keeps_marks: bool,
    /// What a flawed one has accepted but not written.
    unwritten: Mutex<Vec<Vec<u8>>>,
    kept: Mutex<Vec<Delivery>>,
}

impl Memory {
    fn reach(&self) -> Result<(), Fault> {
        match self.disk.lock().unwrap().disturbed {
            None | Some(Disturbance::Slow) => Ok(()),
            Some(_) if self.flaw == Flaw::CallsAnOutageFatal => {
                Err(Fault::fatal("writing", Blame::Outside, "it is down"))
            }
            Some(how) => Err(Fault::retryable("writing", format!("{how:?}"))),
        }
    }

    fn poison(&self, body: &[u8]) -> bool {
        body.len() > LIMIT || body.windows(REFUSED.len()).any(|part| part == REFUSED.as_bytes())
    }

    /// Writes one piece; what is rejected is not in it.
    fn write(&self, mut bodies: Vec<Vec<u8>>) {
        let mut disk = self.disk.lock().unwrap();
        disk.writes += 1;
        match self.flaw {
            Flaw::LosesOne if bodies.len() > 3 => drop(bodies.remove(3)),
            Flaw::WritesTwice => bodies.extend(bodies.last().cloned()),
            Flaw::Reorders => bodies.reverse(),
            Flaw::WritesAsciiOnly => {
                for body in &mut bodies {
                    *body = String::from_utf8_lossy(body).replace(|c: char| !c.is_ascii(), "?").into_bytes();
                }
            }
            Flaw::SkipsKeyless => {
                bodies.retain(|body| !String::from_utf8_lossy(body).contains("\"key\":null"))
            }
            Flaw::CutsLargeRecords => {
                for body in bodies.iter_mut().filter(|body| body.len() > 64 << 10) {
                    body.truncate(64 << 10);
                }
            }
            Flaw::AcceptsBeforeItIsDurable => {
                let late = std::mem::replace(&mut *self.unwritten.lock().unwrap(), bodies);
                bodies = late;
            }
            _ => {}
        }
        disk.records.append(&mut bodies);
    }

    fn is_slow(&self) -> bool {
        self.disk.lock().unwrap().disturbed == Some(Disturbance::Slow)
    }

    /// Every third write takes long, so that one whose delivery was dropped lands behind what came after it.
    fn landing_time(&self) -> Duration {
        let slow = self.is_slow();
        let mut disk = self.disk.lock().unwrap();
        disk.writes += 1;
        Duration::from_millis(match (disk.writes.is_multiple_of(3), slow) {
            (true, true) => 900,
            (true, false) => 15,
            (false, _) => 1,
        })
    }

    fn judge(&self, delivery: &mut Delivery) -> Vec<Vec<u8>> {
        let refused: Vec<(usize, Vec<u8>)> = delivery
            .open()
            .filter(|(_, record)| self.poison(record.body()))
            .map(|(index, record)| (index, record.body().to_vec()))
            .collect();
        let mut stored_all_the_same = Vec::new();
        for (index, body) in refused {
            let why = Rejection::new("refused", &std::io::Error::other("it is poison"));
            match self.flaw {
                Flaw::DropsPoison => delivery.accept(index),
                Flaw::RejectsMutely => {
                    delivery.reject(index, Rejection { reason: String::new(), chain: Vec::new() });
                }
                Flaw::RejectsNeighbours => {
                    delivery.reject(index, why.clone());
                    let next = delivery.open().map(|(other, _)| other).find(|other| *other > index);
                    next.into_iter().for_each(|next| delivery.reject(next, why.clone()));
                }
                Flaw::StoresPoison => {
                    stored_all_the_same.push(body);
                    delivery.reject(index, why);
                }
                _ => delivery.reject(index, why),
            }
        }
        stored_all_the_same
    }

    /// All in one piece, with the mark, as a database does.
    async fn commit(&self, mut delivery: Delivery) {
        let bodies = delivery.open().map(|(_, record)| record.body().to_vec()).collect();
        let mut stream = StreamId::clone(delivery.stream());
        self.write(bodies);
        if self.flaw == Flaw::MixesStreams {
            stream.epoch = 0;
        }
        self.disk.lock().unwrap().marks.insert(stream, delivery.last_mark());
        // The server has committed, and its answer is on the way.
        yield_now().await;
        delivery.accept_all();
    }
}

#[async_trait]
impl Destination for Memory {
    async fn open(&self) -> Result<(), Fault> {
        if self.flaw == Flaw::HangsInOpen && self.reach().is_err() {
            std::future::pending::<()>().await;
        }
        self.reach()
    }

    async fn held(&self, stream: &StreamId) -> Result<Option<Mark>, Fault> {
        let mut stream = stream.clone();
        if self.flaw == Flaw::MixesStreams {
            stream.epoch = 0;
        }
        let mut mark = self.disk.lock().unwrap().marks.get(&stream).copied();
        match self.flaw {
            Flaw::ForgetsMarks => mark = None,
            Flaw::HoldsTooMuch => mark.iter_mut().for_each(|mark| mark.major.1 += 1000),
            _ => {}
        }
        Ok(mark.filter(|_| self.keeps_marks))
    }

    async fn deliver(&self, mut delivery: Delivery) -> Result<(), Fault> {
        let poison = self.judge(&mut delivery);
        self.disk.lock().unwrap().records.extend(poison);
        if self.flaw == Flaw::KeepsTheDelivery {
            self.kept.lock().unwrap().push(delivery);
            return Ok(());
        }
        if self.keeps_marks {
            yield_now().await;
            self.reach()?;
            self.commit(delivery).await;
            return Ok(());
        }
        let mut fault = None;
        let piece = PIECE.max(delivery.len() / PIECES);
        while !delivery.is_empty() {
            if self.is_slow() && self.flaw != Flaw::LandsLate {
                sleep(Duration::from_secs(1)).await;
            }
            sleep(Duration::from_micros(100)).await;
            yield_now().await;
            let (indices, bodies): (Vec<usize>, Vec<Vec<u8>>) =
                delivery.open().take(piece).map(|(index, record)| (index, record.body().to_vec())).unzip();
            if let Err(failed) = self.reach() {
                match self.flaw {
                    Flaw::AcceptsAllAfterAFault => delivery.accept_all(),
                    Flaw::GoesOnBehindAFailedRecord if delivery.len() > PIECE => {
                        let rest =
                            delivery.open().skip(1).map(|(index, record)| (index, record.body().to_vec()));
                        let (indices, bodies): (Vec<usize>, Vec<Vec<u8>>) = rest.unzip();
                        self.write(bodies);
                        indices.into_iter().for_each(|index| delivery.accept(index));
                    }
                    _ => {}
                }
                fault = Some(failed);
                break;
            }
            if self.flaw == Flaw::LandsLate {
                let disk = self.disk.clone();
                let pause = self.landing_time();
                let landing = tokio::spawn(async move {
                    sleep(pause).await;
                    disk.lock().unwrap().records.extend(bodies);
                });
                landing.await.unwrap();
            } else {
                self.write(bodies);
            }
            indices.into_iter().for_each(|index| delivery.accept(index));
        }
        fault.map_or(Ok(()), Err)
    }

    async fn close(&self) -> Result<(), Fault> {
        self.disk.lock().unwrap().records.append(&mut self.unwritten.lock().unwrap());
        match self.flaw {
            Flaw::FailsToClose => Err(Fault::retryable("closing", "it sticks")),
            _ => Ok(()),
        }
    }
}

struct Place {
    disk: Arc<Mutex<Disk>>,
    flaw: Flaw,
    keeps_marks: bool,
}

impl Place {
    fn new(flaw: Flaw, keeps_marks: bool) -> Place {
        Place { disk: Arc::default(), flaw, keeps_marks }
    }
}

#[async_trait]
impl DestinationRig for Place {
    async fn build(&self) -> Arc<dyn Destination> {
        Arc::new(Memory {
            disk: self.disk.clone(),
            flaw: self.flaw,
            keeps_marks: self.keeps_marks,
            unwritten: Mutex::default(),
            kept: Mutex::default(),
        })
    }

    async fn stored(&self) -> Option<Vec<Vec<u8>>> {
        Some(self.disk.lock().unwrap().records.clone())
    }

    fn keeps_marks(&self) -> bool {
        self.keeps_marks
    }

    fn too_large(&self) -> Option<usize> {
        Some(LIMIT + 1)
    }

    fn refused(&self) -> Option<&'static str> {
        Some(REFUSED)
    }

    fn disturbances(&self) -> &[Disturbance] {
        &[Disturbance::Kill, Disturbance::Cut, Disturbance::Refuse, Disturbance::Slow]
    }

    async fn disturb(&self, how: Disturbance) {
        self.disk.lock().unwrap().disturbed = Some(how);
    }

    async fn restore(&self, _: Disturbance) {
        self.disk.lock().unwrap().disturbed = None;
    }
}

#[tokio::test(start_paused = true)]
async fn an_honest_destination_passes_every_check() {
    conform(&[], async |_| Place::new(Flaw::Nothing, true)).await;
    let marks = [("what_is_held_is_struck_off", "it keeps no marks")];
    conform(&marks, async |_| Place::new(Flaw::Nothing, false)).await;
}

/// Flaw, whether the destination keeps marks, the check that must catch it, words of its finding.
const CAUGHT: &[(Flaw, bool, &str, &str)] = &[
    (Flaw::LosesOne, false, "every_record_is_stored_as_it_came", "accepted but are not stored"),
    (Flaw::LosesOne, false, "a_hundred_thousand_records_keep_their_order", "accepted but are not stored"),
    (Flaw::WritesTwice, false, "every_record_is_stored_as_it_came", "stored more than once"),
    (Flaw::WritesTwice, false, "a_new_instance_goes_on", "stored more than once"),
    (Flaw::Reorders, false, "every_record_is_stored_as_it_came", "is stored before event"),
    (Flaw::Reorders, false, "what_comes_again_is_followed_by_its_successors", "is stored before event"),
    (Flaw::WritesAsciiOnly, false, "unicode_is_kept", "not stored as it was delivered"),
    (Flaw::SkipsKeyless, false, "keys_may_be_absent_empty_or_huge", "accepted but are not stored"),
    (
        Flaw::AcceptsBeforeItIsDurable,
        false,
        "what_is_accepted_is_there_at_once",
        "accepted but are not stored",
    ),
    (Flaw::AcceptsBeforeItIsDurable, false, "a_killed_daemon_loses_nothing", "accepted but are not stored"),
    (Flaw::LosesOne, false, "only_what_is_open_is_written", "accepted but are not stored"),
    (
        Flaw::AcceptsAllAfterAFault,
        false,
        "a_server_that_is_killed_loses_nothing",
        "accepted but are not stored",
    ),
    (
        Flaw::AcceptsAllAfterAFault,
        false,
        "a_connection_that_is_cut_loses_nothing",
        "accepted but are not stored",
    ),
    (
        Flaw::GoesOnBehindAFailedRecord,
        false,
        "a_server_that_refuses_for_a_while_loses_nothing",
        "stored before",
    ),
    (
        Flaw::CallsAnOutageFatal,
        false,
        "a_server_that_is_killed_loses_nothing",
        "fatal where another attempt helps",
    ),
    (Flaw::HangsInOpen, true, "a_connection_that_is_cut_loses_nothing", "did not return within"),
    (Flaw::LandsLate, false, "a_dropped_delivery_loses_nothing", "is stored before event"),
    (Flaw::LandsLate, false, "a_slow_server_loses_nothing", "is stored before event"),
    (Flaw::KeepsTheDelivery, false, "every_record_is_stored_as_it_came", "did not come back"),
    (Flaw::ForgetsMarks, true, "what_is_held_is_struck_off", "`held` does not cover them"),
    (Flaw::ForgetsMarks, true, "a_killed_daemon_loses_nothing", "stored more than once"),
    (Flaw::HoldsTooMuch, true, "a_new_instance_goes_on", "struck off as held but are not stored"),
    (Flaw::MixesStreams, true, "two_streams_do_not_mix", "struck off as held but are not stored"),
    (Flaw::CutsLargeRecords, false, "a_large_record_is_stored", "no JSON"),
    (Flaw::DropsPoison, false, "a_record_that_is_too_large_is_rejected", "should have been rejected"),
    (Flaw::StoresPoison, false, "a_refused_record_is_rejected", "were rejected, yet they are stored"),
    (Flaw::RejectsNeighbours, false, "a_refused_record_is_rejected", "though nothing is wrong with them"),
    (Flaw::RejectsMutely, false, "a_record_that_is_too_large_is_rejected", "without a reason"),
    (Flaw::FailsToClose, false, "every_record_is_stored_as_it_came", "`close` failed"),
];

#[tokio::test(start_paused = true)]
async fn each_flaw_is_caught_by_the_check_that_is_there_for_it() {
    for (flaw, keeps_marks, name, words) in CAUGHT {
        let outcome = check(name, &Place::new(*flaw, *keeps_marks)).await;
        let Err(Failure::Broken(seen)) = outcome else { panic!("{flaw:?} passed {name}: {outcome:?}") };
        assert!(seen.contains(words), "{flaw:?} was caught by {name}, but with: {seen}");
    }
}

#[test]
fn every_check_has_caught_a_flaw() {
    for check in CHECKS {
        assert!(
            CAUGHT.iter().any(|(_, _, name, _)| *name == check.name),
            "nothing shows that {} can fail",
            check.name
        );
    }
}

/// Runs some checks only.
async fn conform_to(names: &[&str], exceptions: Exceptions<'_>, flaw: Flaw) {
    let chosen: Vec<Check<Rig>> = CHECKS
        .iter()
        .filter(|check| names.contains(&check.name))
        .map(|check| Check { name: check.name, run: check.run })
        .collect();
    assert_eq!(chosen.len(), names.len());
    crate::testing::conform(&chosen, exceptions, async |_| Box::new(Place::new(flaw, false)) as Box<Rig>)
        .await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "unicode_is_kept: holds, so it must not be excepted")]
async fn an_exception_that_is_not_needed_is_a_failure() {
    conform_to(&["unicode_is_kept"], &[("unicode_is_kept", "too hard")], Flaw::Nothing).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "unicode_is_kept: a record is not stored as it was delivered")]
async fn an_exception_hides_no_failure() {
    conform_to(&["unicode_is_kept"], &[("unicode_is_kept", "too hard")], Flaw::WritesAsciiOnly).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "what_is_held_is_struck_off: the rig brings no marks stored with the data")]
async fn what_the_rig_lacks_is_not_skipped_in_silence() {
    conform_to(&["what_is_held_is_struck_off"], &[], Flaw::Nothing).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "unicode_is_capped: excepted, but there is no such check")]
async fn an_exception_names_a_check() {
    conform_to(&["unicode_is_kept"], &[("unicode_is_capped", "a typing error")], Flaw::Nothing).await;
}

#[test]
fn the_guide_explains_every_check() {
    let guide = include_str!("../../../../../docs/connectors.md");
    for check in CHECKS {
        assert!(
            guide.contains(&format!("| `{}` |", check.name)),
            "docs/connectors.md does not list {}",
            check.name
        );
    }
}
