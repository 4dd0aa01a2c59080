//! The name of this program.

/// Returns the name by which the user calls this program.
pub(crate) fn name() -> &'static str {
    // cargo sets the variable for the programs that it runs
    let by_cargo = std::env::var("CARGO_PKG_NAME");
    if by_cargo.is_ok_and(|package| package == env!("CARGO_PKG_NAME")) {
        "cargo xtask"
    } else {
        env!("CARGO_BIN_NAME")
    }
}
