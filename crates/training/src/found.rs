//! What a run finds when it begins: its checkpoints, and the data that they were trained on.

use block_transformer_checkpoint::{Checkpoint, RunFolder};
use block_transformer_collectives::{Collective, rank_0_first};
use block_transformer_datasets::{CorpusInfo, Mixture};
use burn::tensor::Device;

use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::optimizer::optimizer;
use crate::trainer::Trainer;

/// The newest checkpoint of a resumed run. Rank 0 removes damaged ones after it, before the others look for it.
pub(crate) fn newest(
    folder: &RunFolder,
    config: &TrainConfig,
    resume: bool,
    ranks: &dyn Collective,
) -> Result<Option<Checkpoint>, TrainError> {
    rank_0_first(ranks, || {
        if !resume || folder.checkpoints().is_empty() {
            return Ok(None);
        }
        let checkpoint = Checkpoint::open(&config.out)?;
        if ranks.rank() == 0 {
            folder.remove_after(checkpoint.state.step)?;
        }
        Ok(Some(checkpoint))
    })
}

/// What tells a checkpoint from others of the run.
pub(crate) fn checkpoint_of(checkpoint: Option<&Checkpoint>) -> String {
    checkpoint.map_or("none".into(), |checkpoint| {
        format!(
            "step {} with weights of the SHA-256 {}",
            checkpoint.state.step, checkpoint.weights_sha256
        )
    })
}

/// The description of the data in a checkpoint: that of the corpus, or those of the corpora of a
/// mixture. The configuration has the weights.
pub(crate) fn data_of(mixture: &Mixture) -> Result<serde_json::Value, serde_json::Error> {
    match &mixture.infos()[..] {
        [corpus] => serde_json::to_value(corpus),
        corpora => serde_json::to_value(corpora),
    }
}

/// Returns whether a checkpoint with the description `then` was trained on `mixture`.
pub(crate) fn is_same_data(then: serde_json::Value, mixture: &Mixture) -> bool {
    let then: Vec<CorpusInfo> = if then.is_array() {
        serde_json::from_value(then).unwrap_or_default()
    } else {
        serde_json::from_value(then).into_iter().collect()
    };
    then.iter().eq(mixture.infos())
}

pub(crate) fn resumed(
    checkpoint: &Checkpoint,
    config: &TrainConfig,
    device: &Device,
) -> Result<Trainer, TrainError> {
    let device = device.clone().autodiff();
    let model = checkpoint.load_unmerged(&device)?;
    let (optimizer, skip) = optimizer(config);
    let optimizer = checkpoint.load_optimizer(optimizer)?;
    let optimizer = optimizer.ok_or_else(|| TrainError::NoOptimizer(checkpoint.dir.clone()))?;
    Ok(Trainer::from_parts(model, optimizer, config, device).skipping_by(skip))
}
