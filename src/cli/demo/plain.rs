//! One line per event, for pipes, logs and terminals that only print.

use std::io;

use super::words;
use crate::cli::failure::Failure;
use crate::cli::output::{Console, Style};
use crate::demo::{Frame, News, Tally};
use crate::domain::Timestamp;

/// Prints the story line by line.
pub(super) struct Plain<'c, 'o> {
    console: &'c mut Console<'o>,
    /// What was counted since the last step.
    tally: Tally,
}

impl<'c, 'o> Plain<'c, 'o> {
    pub(super) fn new(console: &'c mut Console<'o>) -> Self {
        Self {
            console,
            tally: Tally::new(),
        }
    }

    pub(super) fn hear(&mut self, at: Timestamp, news: &News) -> io::Result<()> {
        let time = at.format("%H:%M:%S");
        match news {
            News::Scene(title) => {
                let title = self.console.paint(Style::Bold, title);
                self.say("")?;
                self.say(&title)?;
            }
            News::Commit(commit, sentence) => {
                if commit.who == "Serin" && !self.tally.is_empty() {
                    let (hers, theirs) = words::who_got_what(&self.tally);
                    self.say(&format!("{time}  counted  {}: {hers}", words::NAMED))?;
                    self.say(&format!("{time}           the others: {theirs}"))?;
                    self.tally.clear();
                }
                let who = commit.who.to_lowercase();
                self.say(&format!("{time}  {who:<8} {}", commit.subject))?;
                if !sentence.is_empty() {
                    let sentence = format!("                   {sentence}");
                    let sentence = self.console.paint(Style::Dim, &sentence);
                    self.say(&sentence)?;
                }
            }
            News::Event(event) => self.say(&format!("{time}  event    {event}"))?,
        }
        self.console.flush().map_err(io_error)
    }

    pub(super) fn see(&mut self, frame: &Frame) -> io::Result<()> {
        self.tally.clone_from(&frame.tally);
        Ok(())
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        self.console.line(line).map_err(io_error)
    }
}

pub(super) fn io_error(failure: Failure) -> io::Error {
    match failure {
        Failure::Output(error) => error,
        other => io::Error::other(other),
    }
}
