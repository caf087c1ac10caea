//! Where an engine is killed, and where another one overtakes it.

use std::sync::{Arc, Mutex};

/// The points of a pass at which an engine can be killed: before and after everything that touches the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CrashPoint {
    /// Before the remote is asked.
    BeforeFetch,
    /// After the head was read.
    AfterFetch,
    /// Before the cluster is looked at.
    BeforeObserve,
    /// Before Prometheus is asked.
    BeforeAsk,
    /// After Prometheus answered.
    AfterAsk,
    /// After the decision, before the push.
    BeforePush,
    /// After the remote accepted the push, before the engine knows.
    AfterPush,
    /// After the push, before the cluster gets it.
    BeforeApply,
    /// After the cluster got it.
    AfterApply,
}

/// What is to happen to one engine, shared by its ports.
#[derive(Debug, Default)]
pub struct Lifeline {
    /// Kill it at this point.
    pub armed: Option<CrashPoint>,
    /// It was killed: nothing that it still tries reaches the world.
    pub dead: bool,
    /// Where it was killed last.
    pub killed: Option<CrashPoint>,
    /// Its next push waits until the others had a pass.
    pub overtaken: bool,
}

/// A lifeline in the hands of several ports.
pub type Life = Arc<Mutex<Lifeline>>;

impl Lifeline {
    /// Whether the engine lives on past this point.
    pub fn passes(&mut self, point: CrashPoint) -> bool {
        if self.armed == Some(point) {
            self.armed = None;
            self.killed = Some(point);
            self.dead = true;
        }
        !self.dead
    }
}
