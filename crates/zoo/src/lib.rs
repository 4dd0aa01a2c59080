//! Both model families behind one type, and the presets of the paper.
