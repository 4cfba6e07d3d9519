//! Nothing is lost silently: processes are killed with `kill -9`, the broker goes away, drops what it likes, the link
//! is cut or falls silent, under traffic; and in the end the numbers add up.
//!
//! With `QPROXY_LONG=1` outages last as long as they do in real life.

mod stage;
mod kills;
mod outages;
mod full_spool;
mod memory;
mod backup;
