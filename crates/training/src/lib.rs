//! Training by step: schedule, optimizer, checkpoints, metrics.
