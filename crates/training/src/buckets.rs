//! The sum of gradients over ranks, in buckets that begin while the backward pass still runs.

use std::collections::HashMap;
use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};

use block_transformer_collectives::{Collective, CollectiveError, PendingSum, Wire};
use block_transformer_cost::bucket_bytes;
use block_transformer_datasets::Window;
use block_transformer_layers::{Report, watch_layers};
use block_transformer_zoo::Family;
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};

use crate::batch::token_batch;

/// The parameters of a model in the order in which their gradients are summed: the same on all ranks and in
/// all steps.
pub(crate) struct Plan {
    /// Parameters with their numbers of values, by bucket.
    buckets: Vec<Vec<(ParamId, usize)>>,
}

impl Plan {
    /// The order in which the backward pass of `model` completes the gradients. A pass over a small batch on
    /// `device`, the autodiff device of the model, finds it.
    pub(crate) fn of<M: Family>(model: &M, block_length: usize, device: &Device) -> Self {
        let time = 2 * block_length;
        let window = Window { ids: vec![0; time], is_token: vec![true; time] };
        let seen = Arc::new(Mutex::new(Vec::new()));
        let report: Report = {
            let seen = seen.clone();
            Arc::new(move |gradients| {
                let ids = gradients.into_iter().map(|(id, _)| id);
                seen.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
            })
        };
        let batch = token_batch(&[window], block_length, device);
        let loss = watch_layers(report, || model.loss(&batch));
        let gradients = GradientsParams::from_grads(loss.backward(), model);
        let mut lengths = Lengths { gradients: &gradients, all: Vec::new() };
        model.visit(&mut lengths);
        let seen = take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
        let values: usize = lengths.all.iter().map(|(_, length)| length).sum();
        let most = bucket_bytes((values * size_of::<f32>()) as f64) as usize / size_of::<f32>();
        Self::in_order(&lengths.all, &seen, most)
    }

    /// Buckets of at most `most` values, or of one parameter, of the parameters `all`: those of `first` in its order,
    /// then the others, the last one first.
    fn in_order(all: &[(ParamId, usize)], first: &[ParamId], most: usize) -> Self {
        let length = |id: &ParamId| all.iter().find(|(other, _)| other == id).copied();
        let rest = all.iter().rev().filter(|(id, _)| !first.contains(id)).copied();
        let mut buckets = vec![Vec::new()];
        let mut values = 0;
        for (id, length) in first.iter().filter_map(length).chain(rest) {
            if values > 0 && values + length > most {
                buckets.push(Vec::new());
                values = 0;
            }
            values += length;
            buckets.last_mut().expect("there is a bucket").push((id, length));
        }
        Self { buckets }
    }
}

/// The sum of one step.
pub(crate) struct GradientSum {
    filling: Arc<Mutex<Filling>>,
}

/// Buckets that are filled and sent.
struct Filling {
    plan: Arc<Plan>,
    ranks: Arc<dyn Collective>,
    wire: Wire,
    /// The gradients of earlier micro-batches.
    earlier: HashMap<ParamId, Tensor<1>>,
    /// Complete gradients of buckets that were not sent.
    ready: HashMap<ParamId, Vec<f32>>,
    sent: Vec<PendingSum>,
}

impl Filling {
    /// Takes complete gradients, and sends the buckets that they fill, in the order of the plan.
    fn take(&mut self, gradients: Vec<(ParamId, Tensor<1>)>) {
        for (id, gradient) in gradients {
            let gradient = match self.earlier.remove(&id) {
                Some(earlier) => earlier + gradient,
                None => gradient,
            };
            self.ready.insert(id, gradient.into_data().iter::<f32>().collect());
        }
        let plan = self.plan.clone();
        while let Some(bucket) = plan.buckets.get(self.sent.len())
            && bucket.iter().all(|(id, _)| self.ready.contains_key(id))
        {
            self.send(bucket);
        }
    }

    /// Sends a bucket. Gradients that this rank does not have are zeros.
    fn send(&mut self, bucket: &[(ParamId, usize)]) {
        let mut values = Vec::with_capacity(bucket.iter().map(|(_, length)| length).sum());
        for (id, length) in bucket {
            match self.ready.remove(id) {
                Some(gradient) => values.extend(gradient),
                None => values.resize(values.len() + length, 0.0),
            }
        }
        self.sent.extend(self.ranks.begin_sum(values, self.wire));
    }
}

impl GradientSum {
    /// Begins the sum of a step. `earlier` are the gradients of all micro-batches but the last.
    pub(crate) fn new<M: Module>(
        plan: &Arc<Plan>,
        (ranks, wire): (&Arc<dyn Collective>, Wire),
        model: &M,
        earlier: Option<GradientsParams>,
    ) -> Self {
        let filling = Filling {
            plan: plan.clone(),
            ranks: ranks.clone(),
            wire,
            earlier: rows(model, earlier).into_iter().collect(),
            ready: HashMap::new(),
            sent: Vec::new(),
        };
        Self { filling: Arc::new(Mutex::new(filling)) }
    }

    /// Takes the gradients of the layers of the last micro-batch during its backward pass.
    pub(crate) fn report(&self) -> Report {
        let filling = self.filling.clone();
        Arc::new(move |gradients| {
            filling.lock().unwrap_or_else(PoisonError::into_inner).take(gradients);
        })
    }

    /// The sums of the losses (`[1]` on `device`) and of the gradients over all ranks. `last` are the gradients of
    /// the last micro-batch; those that were [reported](Self::report) are not taken again.
    pub(crate) fn finish<M: Module>(
        self,
        model: &M,
        losses: Tensor<1>,
        last: Option<GradientsParams>,
        device: &Device,
    ) -> Result<(Tensor<1>, GradientsParams), CollectiveError> {
        let mut filling = self.filling.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = filling.plan.clone();
        let open: Vec<&(ParamId, usize)> =
            plan.buckets[filling.sent.len()..].iter().flatten().collect();
        let is_open = |id: &ParamId, filling: &Filling| {
            open.iter().any(|(open, _)| open == id) && !filling.ready.contains_key(id)
        };
        let rest = rows(model, last);
        let rest = rest.into_iter().filter(|(id, _)| is_open(id, &filling)).collect();
        filling.take(rest);
        // what is left has gradients from earlier micro-batches only, or none
        let earlier = take(&mut filling.earlier).into_iter();
        let earlier = earlier.map(|(id, row)| (id, row.into_data().iter::<f32>().collect()));
        filling.ready.extend(earlier.collect::<Vec<(ParamId, Vec<f32>)>>());
        for bucket in &plan.buckets[filling.sent.len()..] {
            filling.send(bucket);
        }
        let sent = take(&mut filling.sent);
        if sent.len() != plan.buckets.len() {
            return Err(CollectiveError::Ended);
        }
        // the loss is exact, whatever the format of the gradients
        let losses = filling.ranks.sum(vec![losses], Wire::F32)?.remove(0);
        let mut sums = HashMap::new();
        for (bucket, sum) in plan.buckets.iter().zip(sent) {
            let sum = sum.wait()?;
            let mut rest = &sum[..];
            for &(id, length) in bucket {
                let (row, after) = rest.split_at_checked(length).ok_or(CollectiveError::Lengths)?;
                sums.insert(id, row.to_vec());
                rest = after;
            }
        }
        let mut register = Register { sums, device, gradients: GradientsParams::new() };
        model.visit(&mut register);
        Ok((losses, register.gradients))
    }
}

/// The gradients of `model`, each as a row of values.
fn rows<M: Module>(model: &M, gradients: Option<GradientsParams>) -> Vec<(ParamId, Tensor<1>)> {
    let Some(gradients) = gradients else { return Vec::new() };
    let mut rows = Rows { gradients, rows: Vec::new() };
    model.visit(&mut rows);
    rows.rows
}

struct Rows {
    gradients: GradientsParams,
    rows: Vec<(ParamId, Tensor<1>)>,
}

impl ModuleVisitor for Rows {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            let count = gradient.shape().num_elements();
            self.rows.push((param.id, gradient.reshape([count])));
        }
    }
}

/// The parameters that have gradients, with their numbers of values.
struct Lengths<'a> {
    gradients: &'a GradientsParams,
    all: Vec<(ParamId, usize)>,
}

impl ModuleVisitor for Lengths<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.all.push((param.id, gradient.shape().num_elements()));
        }
    }
}

struct Register<'a> {
    sums: HashMap<ParamId, Vec<f32>>,
    device: &'a Device,
    gradients: GradientsParams,
}

impl ModuleVisitor for Register<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(values) = self.sums.remove(&param.id) {
            let data = TensorData::new(values, param.dims());
            self.gradients.register(param.id, Tensor::<D>::from_data(data, self.device));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_transformer_zoo::{FamilyConfig, LanguageModel};

    #[test]
    fn buckets_are_full_and_in_the_order_of_the_backward_pass() {
        let ids: Vec<ParamId> = (0..5).map(|_| ParamId::new()).collect();
        let all: Vec<(ParamId, usize)> = ids.iter().copied().zip([50, 60, 30, 5, 7]).collect();
        let plan = Plan::in_order(&all, &[ids[3], ids[2]], 40);
        let numbers = |bucket: &Vec<(ParamId, usize)>| -> Vec<usize> {
            bucket.iter().map(|(id, _)| ids.iter().position(|other| other == id).unwrap()).collect()
        };
        let buckets: Vec<Vec<usize>> = plan.buckets.iter().map(numbers).collect();
        assert_eq!(buckets, [vec![3, 2], vec![4], vec![1], vec![0]]);
    }

    /// The gradients that are reported early must be those at the end of the backward pass.
    #[test]
    fn reported_gradients_are_complete() {
        let device = Device::flex().autodiff();
        for (name, config) in block_transformer_testing::shapes() {
            let model = LanguageModel::init(&config, 0, &device);
            let (block, time) = (config.block_length(), 4 * config.block_length());
            let ids = (0..time).map(|i| (i * 7 % 64) as u32).collect();
            let batch = token_batch(&[Window { ids, is_token: vec![true; time] }], block, &device);
            let seen = Arc::new(Mutex::new(Vec::new()));
            let report: Report = {
                let seen = seen.clone();
                Arc::new(move |gradients| seen.lock().unwrap().extend(gradients))
            };
            let loss = watch_layers(report, || model.loss(&batch));
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            let end: HashMap<ParamId, Tensor<1>> =
                rows(&model, Some(gradients)).into_iter().collect();
            let seen = take(&mut *seen.lock().unwrap());
            let in_layers = seen.len();
            assert!(2 * in_layers > end.len(), "{name}: {in_layers} of {}", end.len());
            for (id, gradient) in seen {
                let [early, late] = [&gradient, &end[&id]].map(|row| row.to_data());
                assert_eq!(early, late, "{name}");
            }
            let plan = Plan::of(&model, block, &device);
            assert_eq!(plan.buckets.iter().flatten().count(), end.len());
        }
    }
}
