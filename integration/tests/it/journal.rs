//! A journal on real disks that are full, fail, and lose their daemon: through its contract, without the rest of one.
//!
//! A full and a failing disk need a mount or a tracer of their own, and a death a process of its own: such a test starts
//! itself again inside what it needs.

mod faults;
mod kill;
pub(crate) mod rig;
