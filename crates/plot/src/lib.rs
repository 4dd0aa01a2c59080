//! Line plots as SVG and PNG.
