//! Bad input and bad surroundings, with real processes: what is said, how it ends, and that nothing is lost.

mod refusals;
mod checks;
mod stage;
mod troubles;
mod ends;
mod upstreams;
