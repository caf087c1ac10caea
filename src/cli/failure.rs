//! How a command ends: done, not well, or used wrongly.

use std::io;
use std::process::ExitCode;

/// How a command that could do its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All is well: exit status 0.
    Done,
    /// The thing that was asked about is not well, and the output says so: exit status 1.
    NotWell,
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// What was asked for makes no sense: exit status 2.
    #[error("{0}")]
    Usage(String),
    /// It made sense, but did not work: exit status 1.
    #[error("{0}")]
    Failed(String),
    /// The output could not be written: exit status 1, or 0 when the reader has gone, as after `| head`.
    #[error("failed to write the output")]
    Output(#[from] io::Error),
}

impl Failure {
    /// A mistake in how the command was called.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    /// Work that failed.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// Whether the reader of our output has gone: nothing is wrong, and nobody is there to be told.
    pub(super) fn is_silent(&self) -> bool {
        match self {
            Self::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Self::Usage(_) | Self::Failed(_) => false,
        }
    }
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// The exit status of a command.
pub(super) fn exit_code(result: &Result<Outcome, Failure>) -> ExitCode {
    ExitCode::from(status(result))
}

fn status(result: &Result<Outcome, Failure>) -> u8 {
    match result {
        Ok(Outcome::Done) => 0,
        Ok(Outcome::NotWell) => 1,
        Err(failure) if failure.is_silent() => 0,
        Err(Failure::Usage(_)) => 2,
        Err(Failure::Failed(_) | Failure::Output(_)) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_status_follows_the_contract() {
        let cases = [
            (Ok(Outcome::Done), 0),
            (Ok(Outcome::NotWell), 1),
            (Err(Failure::usage("no such file")), 2),
            (Err(Failure::failed("no answer")), 1),
            (Err(Failure::Output(io::ErrorKind::StorageFull.into())), 1),
            (Err(Failure::Output(io::ErrorKind::BrokenPipe.into())), 0),
        ];
        for (result, expected) in cases {
            assert_eq!(status(&result), expected, "{result:?}");
        }
    }
}
