//! Evaluations and preparations that are shared by rank write what one rank writes.
