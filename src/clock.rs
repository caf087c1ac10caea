//! The only place that reads the time or waits for it.

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use crate::domain::Timestamp;

/// Where "now" comes from.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Timestamp;

    /// Waits until `until`; returns at once when that has passed.
    fn sleep_until(&self, until: Timestamp) -> impl Future<Output = ()> + Send;
}

impl<K: Clock> Clock for std::sync::Arc<K> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    async fn sleep_until(&self, until: Timestamp) {
        (**self).sleep_until(until).await;
    }
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one reader of wall time")]
    fn now(&self) -> Timestamp {
        chrono::Utc::now()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that waits")]
    async fn sleep_until(&self, until: Timestamp) {
        let wait = (until - self.now()).to_std().unwrap_or(Duration::ZERO);
        tokio::time::sleep(wait).await;
    }
}

/// A clock that stands still until it is moved: replays, tests and simulations.
#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn new(now: Timestamp) -> Self {
        Self(Mutex::new(now))
    }

    /// Sets the clock, backwards too: clocks of real machines jump both ways.
    pub fn set(&self, now: Timestamp) {
        *self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn sleep_until(&self, until: Timestamp) {
        if until > self.now() {
            self.set(until);
        }
    }
}
