//! Distillation: the student also learns the distribution of a vanilla teacher at the same tokens
//! (Hinton et al., arXiv 1503.02531, at temperature 1).

use block_transformer_datasets::Window;
use block_transformer_layers::{linear_cross_entropy, project};
use block_transformer_text::PAD;
use block_transformer_zoo::{Family, LanguageModel, PaddingMask, TokenBatch};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};

/// A vanilla model without autodiff, whose distribution the student learns.
pub(crate) struct Teacher {
    model: LanguageModel,
    /// Weight of the divergence in the loss.
    weight: f64,
}

/// The tokens that a student predicts, as they are known to the teacher.
#[derive(Debug, PartialEq)]
struct Aligned {
    /// The tokens of each window without padding, then padding to a common length, `[batch, time]`.
    ids: Vec<i32>,
    time: usize,
    /// For each predicted token: its row among the student's hidden states.
    student: Vec<i64>,
    /// For each predicted token: its row among the teacher's hidden states.
    teacher: Vec<i64>,
}

impl Aligned {
    /// Aligns windows with blocks of `block_length` tokens. The teacher sees no padding, so that it reads each
    /// window as it would read the text.
    fn new(windows: &[Window], block_length: usize) -> Self {
        let tokens = |window: &Window| window.is_token.iter().filter(|&&is_token| is_token).count();
        let time = windows.iter().map(tokens).max().unwrap_or(0);
        let predicted = windows.first().map_or(0, |window| window.ids.len() - block_length);
        let (mut ids, mut student, mut teacher) = (Vec::new(), Vec::new(), Vec::new());
        for (row, window) in windows.iter().enumerate() {
            let before = ids.len();
            for (at, (&id, &is_token)) in window.ids.iter().zip(&window.is_token).enumerate() {
                if !is_token {
                    continue;
                }
                let place = ids.len() - before;
                ids.push(id as i32);
                // a state predicts the token after it
                if at >= block_length && place > 0 {
                    student.push((row * predicted + at - block_length) as i64);
                    teacher.push((row * (time - 1) + place - 1) as i64);
                }
            }
            ids.resize(before + time, PAD as i32);
        }
        Self { ids, time, student, teacher }
    }
}

impl Teacher {
    pub(crate) fn new(model: LanguageModel, weight: f64) -> Self {
        Self { model, weight }
    }

    /// The cross-entropy of `student` on `windows`, which `batch` holds, plus the weighted mean over the predicted
    /// tokens of the divergence KL(teacher || student), `[1]`, in nats per token.
    pub(crate) fn loss<M: Family>(
        &self,
        student: &M,
        windows: &[Window],
        batch: &TokenBatch,
    ) -> Tensor<1> {
        let hidden = student.hidden(batch); // [rows, h]
        let (device, [rows, _]) = (hidden.device(), hidden.dims());
        let targets = batch.targets().reshape([rows]);
        let weights = batch.weights(&device).reshape([rows]);
        let loss = linear_cross_entropy(hidden.clone(), student.head(), targets, weights);
        let aligned = Aligned::new(windows, batch.block_length);
        if aligned.student.is_empty() {
            return loss;
        }
        let count = aligned.student.len();
        let places = indices(aligned.student.clone(), &device);
        let logits = project(hidden.select(0, places), student.head(), None); // [count, v]
        let known = self.log_probabilities(windows.len(), aligned, &device.clone().inner());
        let known = Tensor::from_inner(known);
        let divergence = known.clone().exp() * (known - log_softmax(logits, 1));
        loss + divergence.sum() * (self.weight / count as f64)
    }

    /// `[count, v]`, without autodiff.
    fn log_probabilities(&self, batch: usize, aligned: Aligned, device: &Device) -> Tensor<2> {
        let ids = Tensor::from_data(TensorData::new(aligned.ids, [batch, aligned.time]), device);
        let hidden =
            self.model.hidden(&TokenBatch { ids, is_token: PaddingMask::full(), block_length: 1 });
        let hidden = hidden.select(0, indices(aligned.teacher, device));
        log_softmax(project(hidden, self.model.head(), None), 1)
    }
}

fn indices(places: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let count = places.len();
    Tensor::from_data(TensorData::new(places, [count]), device)
}

#[cfg(test)]
mod tests {
    use block_transformer_zoo::{ModelConfig, preset};
    use burn::module::Module;

    use super::*;
    use crate::batch::token_batch;
    use crate::uptrain::Uptrain;

    fn window(ids: &[u32]) -> Window {
        Window { ids: ids.to_vec(), is_token: ids.iter().map(|&id| id != PAD).collect() }
    }

    #[test]
    fn predicted_tokens_are_aligned_without_padding() {
        let windows = [window(&[PAD, 10, 11, 12, 13, 14]), window(&[20, 21, 22, PAD, 23, 24])];
        let aligned = Aligned::new(&windows, 2);
        assert_eq!(
            (aligned.time, &aligned.ids[..]),
            (5, &[10, 11, 12, 13, 14, 20, 21, 22, 23, 24][..])
        );
        // rows of the student: 4 per window; of the teacher: also 4
        assert_eq!(aligned.student, [0, 1, 2, 3, 4, 6, 7]);
        assert_eq!(aligned.teacher, [0, 1, 2, 3, 5, 6, 7]);
        assert!(Aligned::new(&[window(&[PAD; 4])], 2).student.is_empty());
    }

    /// The divergence in f64 from the logits of both models, position by position.
    #[test]
    fn the_loss_is_the_cross_entropy_plus_the_weighted_divergence() {
        let device = Device::flex();
        let vanilla = preset("debug-vanilla").unwrap().model.clone();
        let ModelConfig::Vanilla(shape) = &vanilla else { unreachable!() };
        let block = ModelConfig::Block(Uptrain::Partition.shape(shape).unwrap());
        let (teacher, student) =
            (vanilla.init(1, &device), block.init(2, &device.clone().autodiff()));
        let windows = [window(&[PAD, 5, 6, 7, 8, 9, 10, 11, 12, 13, 0, PAD])];
        let batch = token_batch(&windows, 4, &device.clone().autodiff());
        let value = |loss: Tensor<1>| loss.into_data().iter::<f64>().next().unwrap();
        let plain = value(student.loss(&batch));
        let loss = value(Teacher::new(teacher.clone(), 0.5).loss(&student, &windows, &batch));

        let softmax = |logits: Vec<f64>| {
            let most = logits.iter().copied().fold(f64::MIN, f64::max);
            let sum = logits.iter().map(|x| (x - most).exp()).sum::<f64>();
            logits.into_iter().map(|x| x - most - sum.ln()).collect::<Vec<f64>>()
        };
        let rows = |model: &LanguageModel, batch: &TokenBatch| -> Vec<Vec<f64>> {
            let (logits, _) = model.predict(batch);
            let [_, _, vocab] = logits.dims();
            let values: Vec<f64> = logits.into_data().iter().collect();
            values.chunks(vocab).map(|row| softmax(row.to_vec())).collect()
        };
        let text = [window(&[5, 6, 7, 8, 9, 10, 11, 12, 13, 0])];
        let known = rows(&teacher, &token_batch(&text, 1, &device));
        let ours = rows(&student.valid(), &token_batch(&windows, 4, &device));
        // the student predicts 8 at position 4 of its window; the teacher after 5, 6, 7
        let divergences = (0..7).map(|i| {
            let (p, q) = (&known[i + 2], &ours[i]);
            p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()
        });
        let expected = plain + 0.5 * divergences.sum::<f64>() / 7.0;
        assert!((loss - expected).abs() < 1e-4, "{loss} {expected} {plain}");
        assert!(expected > plain + 1e-3);
    }
}
