//! The steps after which losses and gradient norms are copied to the host.

use block_transformer_device::DeviceName;

use crate::config::TrainConfig;

/// When the losses and gradient norms of steps are copied from the device to the host. A GPU waits
/// at each copy; on a processor a copy costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPolicy {
    /// After every step.
    EveryStep,
    /// After steps whose number is a multiple of this one, which is at least 1. Several steps are
    /// then read at once. A validation, a checkpoint, a progress report and the end of the run read
    /// all steps before them.
    EverySteps(u64),
}

impl ReadPolicy {
    /// The policy for the devices and the log interval of `config`.
    pub fn of(config: &TrainConfig) -> Self {
        let free = |device: &DeviceName| matches!(device, DeviceName::Flex | DeviceName::Ndarray);
        match config.all_devices().iter().all(free) {
            true => Self::EveryStep,
            false => Self::EverySteps(config.log_every),
        }
    }

    /// Whether step `step`, counted from 1, is followed by a read in any case.
    pub(crate) fn reads_after(self, step: u64) -> bool {
        match self {
            Self::EveryStep => true,
            Self::EverySteps(steps) => step.is_multiple_of(steps),
        }
    }
}
