//! Input that means harm, or means nothing: through the real adapter, the real program and real `git`.

mod messages;
mod names;
mod repository;
mod size;
