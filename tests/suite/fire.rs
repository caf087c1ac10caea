//! The engine under fire: real servers, races, refusals, outages, crashes, a damaged disk.

mod crash;
mod people;
mod power_loss;
mod races;
mod refusals;
pub(crate) mod rig;
