//! Vector arithmetic: functions that the compiler vectorizes, and explicit vectors.

pub(crate) mod math;
pub(crate) mod vector;
