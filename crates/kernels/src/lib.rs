//! Operations written out for the flex device, which burn composes of many.
