//! What happens in a scenario, done to the remote, the mesh and the engines.

use super::metrics::PrometheusMood;
use super::scenario::Act;
use super::{Simulation, lock, text_of};
use crate::domain::RepoPath;

/// Whether the engines hear of it: commits by a webhook, what happens in the cluster by a watch. That a remote or Prometheus
/// is back they find out when they look.
fn rouses(act: &Act) -> bool {
    match act {
        Act::Commit(_)
        | Act::Revert { .. }
        | Act::Restore { .. }
        | Act::Race(_)
        | Act::Rewind(_)
        | Act::Kubernetes(_)
        | Act::DeleteNamespace
        | Act::EditCluster { .. }
        | Act::ScaleStable(_) => true,
        Act::Prometheus(_)
        | Act::Down(_)
        | Act::Refuse(_)
        | Act::Crash(..)
        | Act::Skew(..)
        | Act::Overtake(_)
        | Act::Lose(_)
        | Act::ResetCounters => false,
    }
}

impl Simulation {
    pub(super) fn act(&mut self, act: Act) {
        if rouses(&act) {
            for runner in &mut self.runners {
                runner.wake_at = runner.wake_at.min(self.now);
            }
        }
        match act {
            Act::Commit(change) => {
                let resolved = change.resolve(&lock(&self.remote).tree());
                if let Some(change) = resolved {
                    lock(&self.remote).commit(change, self.now);
                }
                self.report_commits();
            }
            Act::Revert { who, subject } => {
                let change = lock(&self.remote).revert_of(&subject, who);
                match change {
                    Some(change) => lock(&self.remote).commit(change, self.now),
                    None => self.line("event", &format!("nothing to revert: {subject}")),
                }
                self.report_commits();
            }
            Act::Restore { who, folder } => {
                let change = lock(&self.remote).restoration_of(&folder, who);
                if let Some(change) = change {
                    lock(&self.remote).commit(change, self.now);
                }
                self.report_commits();
            }
            Act::Race(change) => {
                let resolved = change.resolve(&lock(&self.remote).tree());
                lock(&self.remote)
                    .races
                    .extend(resolved.map(|change| (change, self.now)));
            }
            Act::Rewind(count) => {
                lock(&self.remote).rewind(count);
                self.reported = lock(&self.remote).commits().len();
                self.line(
                    "event",
                    &format!("somebody forces the branch back by {count}"),
                );
            }
            Act::Prometheus(mood) => {
                let mut world = lock(&self.world);
                world.frozen = (mood == PrometheusMood::Stale).then_some(world.now);
                world.mood = mood;
                drop(world);
                self.line("event", &format!("prometheus: {mood:?}").to_lowercase());
            }
            Act::Down(down) => {
                lock(&self.remote).down = down;
                self.line("event", if down { "remote: down" } else { "remote: up" });
            }
            Act::Refuse(words) => {
                let what = words.as_deref().unwrap_or("nothing any more").to_owned();
                lock(&self.remote).refuses = words;
                self.line("event", &format!("remote refuses: {what}"));
            }
            Act::Crash(index, point) => {
                if let Some(runner) = self.runners.get(index) {
                    lock(&runner.life).armed = Some(point);
                }
            }
            Act::Overtake(index) => {
                if let Some(runner) = self.runners.get(index) {
                    lock(&runner.life).overtaken = true;
                    self.seen.note("engine: overtaken");
                }
            }
            Act::Skew(index, by) => self.skew(index, by),
            Act::Lose(lost) => {
                lock(&self.remote).lost = Some(lost);
                self.line("event", "the answer to the next push is lost");
            }
            Act::Kubernetes(mood) => {
                lock(&self.world).cluster = mood;
                self.line("event", &format!("kubernetes: {mood:?}").to_lowercase());
            }
            Act::ResetCounters => {
                lock(&self.world).reset_counters();
                self.seen.note("counters: reset");
                self.line("event", "every pod restarts, counters start from zero");
            }
            Act::ScaleStable(replicas) => {
                lock(&self.world).stable_replicas = Some(replicas);
                self.line(
                    "event",
                    &format!("an autoscaler gives stable {replicas} replicas"),
                );
            }
            Act::DeleteNamespace => {
                if !lock(&self.world).objects.is_empty() {
                    self.seen.note("cluster: namespace deleted");
                }
                lock(&self.world).objects.clear();
                self.line("event", "the namespace is deleted by hand");
            }
            Act::EditCluster { path, from, to } => self.edit_cluster(&path, &from, &to),
        }
    }

    fn skew(&mut self, index: usize, by: chrono::Duration) {
        let Some(runner) = self.runners.get_mut(index) else {
            return;
        };
        runner.skew = by;
        runner.clock.set(self.now + by);
        runner.wake_at = self.now;
        if !by.is_zero() {
            self.seen.skewed(by);
        }
        self.clocks_were_fair &= by.abs() <= chrono::Duration::minutes(2);
        let whose = match index {
            0 => "the engine's clock".to_owned(),
            _ => format!("the clock of engine {}", index + 1),
        };
        let seconds = by.num_seconds();
        self.line("event", &format!("{whose} is off by {seconds} s"));
    }

    fn edit_cluster(&mut self, path: &RepoPath, from: &str, to: &str) {
        let mut world = lock(&self.world);
        let change = world.changes + 1;
        world.changes = change;
        for held in world.objects.values_mut() {
            if let Some(content) = held.files.get_mut(path) {
                let text = text_of(content);
                if text.contains(from) {
                    self.seen.note("cluster: edited by hand");
                }
                *content = text.replace(from, to).into_bytes().into();
                held.version = change;
            }
        }
        drop(world);
        self.line(
            "event",
            &format!("{} is edited by hand in the cluster", path.file_name()),
        );
    }
}
