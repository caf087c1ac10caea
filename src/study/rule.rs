//! What a rule of progressive delivery is to the benchmark: something that looks at Prometheus and moves a weight.

use serde::Serialize;

use super::argo::Argo;
use super::flagger::Flagger;
use super::scenario::Ms;
use super::serin::Serin;
use super::traffic::World;
use super::tries::Try;

/// What a rule wants at a look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Move {
    /// Nothing.
    Stay,
    /// This share of the traffic for the candidate, 0 to 1.
    Route(f64),
    /// The end: traffic back to stable.
    RollBack,
    /// The end: the candidate becomes stable.
    Promote,
    /// The end without an answer: a person has to look.
    GiveUp,
}

/// A rule at work in one rollout.
pub trait Judge {
    /// The next look, after the one at `now`.
    fn next_look(&self, now: Ms) -> Ms;
    /// Looks at the world as it is now.
    fn look(&mut self, world: &World) -> Move;
}

/// The rules that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Serin's own: the judge of `analysis`.
    Serin,
    /// Flagger's tutorial with its default threshold of 1.
    Flagger1,
    /// Flagger's tutorial, threshold 5.
    Flagger5,
    /// The example of Argo Rollouts' documentation: the success rate of the whole service.
    ArgoService,
    /// The same on the candidate alone.
    ArgoCanary,
    /// Argo Rollouts, tuned like Flagger: 1 min, 99 %, no failure allowed.
    ArgoTuned,
    /// Serin's judge with one thing changed.
    Try(Try),
}

impl Rule {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 6] = [
        Self::Serin,
        Self::Flagger1,
        Self::Flagger5,
        Self::ArgoService,
        Self::ArgoCanary,
        Self::ArgoTuned,
    ];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serin => "Serin",
            Self::Flagger1 => "Flagger, threshold 1",
            Self::Flagger5 => "Flagger, threshold 5",
            Self::ArgoService => "Argo docs, service-wide",
            Self::ArgoCanary => "Argo docs, canary only",
            Self::ArgoTuned => "Argo 1 min, 99%",
            Self::Try(what) => what.name(),
        }
    }

    /// The rule at the beginning of a rollout.
    pub fn begin(self, world: &World) -> Box<dyn Judge> {
        match self {
            Self::Serin => Box::new(Serin::begin(world)),
            Self::Flagger1 => Box::new(Flagger::new(1)),
            Self::Flagger5 => Box::new(Flagger::new(5)),
            Self::ArgoService => Box::new(Argo::docs(true)),
            Self::ArgoCanary => Box::new(Argo::docs(false)),
            Self::ArgoTuned => Box::new(Argo::tuned()),
            Self::Try(what) => Box::new(Serin::trying(world, what)),
        }
    }
}
