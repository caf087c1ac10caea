//! The engine under fire: real servers, races, refusals, outages, crashes, a damaged disk.

mod crash;
mod power_loss;
mod races;
mod refusals;
mod rig;
