//! Whatever ends the daemon: what was answered with success is delivered.

use serde_json::Value;

use super::{Load, World};

/// Enough for many sends, with requests under way at any time.
const ENOUGH: usize = 1500;

impl World {
    /// Waits until each of these events is in the file; the last that is not there yet is looked for first.
    async fn has_all(&mut self, ids: &[String]) {
        let path = self.daemon.path("events.ndjson");
        let there = |_: &Value| {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let events: std::collections::HashSet<&str> = text
                .lines()
                .filter_map(|line| line.strip_prefix("{\"id\":\""))
                .filter_map(|rest| rest.get(..36))
                .collect();
            ids.iter().all(|id| events.contains(id.as_str()))
        };
        self.daemon.wait_until("all that was answered is in the file", there).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_with_a_journal_delivers_all_that_it_answered() {
    let mut world = World::of("journal: disk", "");
    let mut answered = Vec::new();
    for round in 1..=3 {
        world.start().await;
        let load = Load::begin(world.port, round, 16);
        world.has(answered.len() + ENOUGH).await;
        world.daemon.kill().await;
        let told = load.answered().await;
        assert!(told.len() > 100, "{}", told.len());
        answered.extend(told);
    }
    world.start().await;
    world.has_all(&answered).await;
    assert_eq!(world.daemon.stop().await, 0);
    let events = world.events();
    assert!(answered.iter().all(|id| events[id].1["valid"] == true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_stopped_answers_what_it_has_taken_and_delivers_it() {
    for journal in ["journal: none", "journal: disk"] {
        let mut world = World::of(journal, "");
        let mut answered = Vec::new();
        // A source without positions begins anew each time, and nothing keeps it from that.
        for round in 1..=2 {
            world.start().await;
            let load = Load::begin(world.port, round, 16);
            world.has(answered.len() + ENOUGH).await;
            assert_eq!(world.daemon.stop().await, 0, "{journal}");
            answered.extend(load.answered().await);
        }
        if journal == "journal: disk" {
            world.start().await;
            world.has_all(&answered).await;
            assert_eq!(world.daemon.stop().await, 0);
        }
        let events = world.events();
        assert!(answered.len() >= ENOUGH && answered.iter().all(|id| events.contains_key(id)), "{journal}");
    }
}
