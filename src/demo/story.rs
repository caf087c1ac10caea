//! The story: what people do, how long the audience watches, and whether it ended as told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::TimeDelta;

use super::claims;
use super::frame::{Audience, Claim, Commit, News};
use super::stage::{DemoError, NAMED, Stage};
use crate::clock::{Clock, SystemClock};
use crate::domain::Timestamp;
use crate::progression::TransitionKind;

/// The story takes about so long; it begins that long ago, so that its commits end about now.
const LENGTH: TimeDelta = TimeDelta::minutes(7);
/// Longest part of the story, in seconds of its own time. A part that takes longer went wrong.
const PATIENCE: i64 = 900;

/// How fast it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Real time for a second of the story.
    pub second: Duration,
    /// Real time to read the title of a part.
    pub title: Duration,
}

impl Pace {
    /// For people: under a minute.
    pub const READABLE: Self = Self {
        second: Duration::from_millis(95),
        title: Duration::from_millis(1_800),
    };
    /// As fast as the machine.
    pub const FAST: Self = Self {
        second: Duration::ZERO,
        title: Duration::ZERO,
    };
}

/// How it ended.
#[derive(Debug, Clone)]
pub struct Ending {
    /// The bare repository.
    pub repository: PathBuf,
    /// What the story claims, checked against what was counted and what Git says.
    pub claims: Vec<Claim>,
    /// All commits, oldest first.
    pub commits: Vec<Commit>,
}

/// Tells the story in an empty folder.
pub async fn tell(
    folder: &Path,
    pace: Pace,
    audience: &mut impl Audience,
) -> Result<Ending, DemoError> {
    let clock = SystemClock;
    let now = clock.now();
    let start = Timestamp::from_timestamp((now - LENGTH).timestamp(), 0).unwrap_or(now);
    let founding = "Add podinfo 6.8.0 and its Canary";
    let stage = Stage::build(folder, start, "dana", founding).await?;
    let mut story = Story {
        stage,
        audience,
        pace,
        clock,
        due: now,
        title: String::new(),
    };
    story
        .scene("dana adds podinfo 6.8.0 and a Canary; Serin commits the routes")
        .await?;
    if let Some(first) = story.stage.commits.first().cloned() {
        story.hear(&News::Commit(first, String::new()))?;
    }
    story
        .until("Serin commits the routes", |stage| {
            stage.last(TransitionKind::Initialize).is_some()
        })
        .await?;
    story.seconds(5).await?;
    let outage = story.good_release().await?;
    story.bad_release().await?;
    let stage = story.stage;
    Ok(Ending {
        claims: claims::check(&stage, outage)?,
        repository: stage.repository.clone(),
        commits: stage.commits.clone(),
    })
}

/// From when to when the namespace was gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    /// What the mesh sent to the candidate when it was back, in per cent.
    pub(super) routed: f64,
}

struct Story<'a, A> {
    stage: Stage,
    audience: &'a mut A,
    pace: Pace,
    clock: SystemClock,
    /// When the next second of the story begins, in real time.
    due: Timestamp,
    title: String,
}

impl<A: Audience> Story<'_, A> {
    async fn good_release(&mut self) -> Result<Outage, DemoError> {
        self.scene("alexis proposes 6.9.0 and names herself: she gets it, nobody else does")
            .await?;
        self.propose(
            NAMED,
            "Propose podinfo 6.9.0, and let me try it first",
            &[
                ("podinfo:6.8.0", "podinfo:6.9.0"),
                ("users: []", "users: [{header: x-user, exact: [alexis]}]"),
            ],
        )
        .await?;
        self.until("the first step up", |stage| stage.weight().percent() == 10)
            .await?;
        self.scene("The ladder: each step needs evidence, and each step is one commit")
            .await?;
        self.until("60%", |stage| stage.weight().percent() == 60)
            .await?;
        self.seconds(15).await?;
        self.scene("Somebody deletes the namespace. Git still says 60%")
            .await?;
        let from = self.stage.now();
        self.stage.delete_namespace();
        self.event("the namespace test is deleted by hand".to_owned())
            .await?;
        self.until("the namespace", |stage| stage.routed().is_some())
            .await?;
        let until = self.stage.now();
        let routed = self.stage.routed().unwrap_or_default();
        self.event(format!(
            "everything is back from Git, with {routed}% for the candidate"
        ))
        .await?;
        self.until("100%", |stage| stage.weight().percent() == 100)
            .await?;
        self.scene("6.9.0 serves everybody: it becomes stable, in its own manifest")
            .await?;
        self.until("the end of the rollout", Stage::rests).await?;
        self.seconds(5).await?;
        Ok(Outage {
            from,
            until,
            routed,
        })
    }

    async fn bad_release(&mut self) -> Result<(), DemoError> {
        self.scene("dana proposes 6.10.0: well with a few requests, broken under load")
            .await?;
        self.propose(
            "dana",
            "Propose podinfo 6.10.0",
            &[("podinfo:6.9.0", "podinfo:6.10.0")],
        )
        .await?;
        self.until("the rollback", |stage| {
            stage.last(TransitionKind::RollBack).is_some()
        })
        .await?;
        self.scene("6.10.0 is rolled back. It never was stable: there is nothing to take back")
            .await?;
        self.until("the end of the rollback", Stage::rests).await?;
        self.seconds(5).await
    }

    async fn scene(&mut self, title: &str) -> Result<(), DemoError> {
        title.clone_into(&mut self.title);
        self.hear(&News::Scene(title.to_owned()))?;
        self.audience.see(&self.stage.frame(&self.title))?;
        self.wait(self.pace.title).await;
        Ok(())
    }

    /// What happens outside of Git, with time to look at it.
    async fn event(&mut self, what: String) -> Result<(), DemoError> {
        self.hear(&News::Event(what))?;
        self.audience.see(&self.stage.frame(&self.title))?;
        self.wait(self.pace.title).await;
        Ok(())
    }

    async fn propose(
        &mut self,
        who: &'static str,
        says: &str,
        replace: &[(&str, &str)],
    ) -> Result<(), DemoError> {
        let news = self.stage.propose(who, says, replace).await?;
        self.hear(&news)
    }

    fn hear(&mut self, news: &News) -> Result<(), DemoError> {
        self.audience.hear(self.stage.now(), news)?;
        Ok(())
    }

    async fn until(&mut self, what: &str, there: impl Fn(&Stage) -> bool) -> Result<(), DemoError> {
        for _ in 0..PATIENCE {
            self.pass().await?;
            if there(&self.stage) {
                return Ok(());
            }
            self.second().await?;
        }
        let waiting = self.stage.frame("").waiting;
        Err(DemoError::Off(format!(
            "{what} did not come within {} minutes; Serin says: {waiting}",
            PATIENCE / 60
        )))
    }

    async fn seconds(&mut self, count: u64) -> Result<(), DemoError> {
        for _ in 0..count {
            self.pass().await?;
            self.second().await?;
        }
        Ok(())
    }

    async fn pass(&mut self) -> Result<(), DemoError> {
        for news in self.stage.pass().await? {
            self.hear(&news)?;
        }
        Ok(())
    }

    async fn second(&mut self) -> Result<(), DemoError> {
        self.stage.second();
        self.audience.see(&self.stage.frame(&self.title))?;
        self.wait(self.pace.second).await;
        Ok(())
    }

    async fn wait(&mut self, time: Duration) {
        self.due += TimeDelta::from_std(time).unwrap_or_default();
        self.clock.sleep_until(self.due).await;
    }
}
