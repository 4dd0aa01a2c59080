//! Weights stored in a narrower format.

use block_transformer_testing::shapes;
use block_transformer_zoo::{Family, FamilyConfig, PaddingMask, Precision, TokenBatch};
use burn::tensor::{Device, Int, Tensor, TensorData};

#[test]
fn narrow_matrices_change_the_loss_a_little() {
    let device = Device::flex();
    for name in ["debug-block", "debug-vanilla"] {
        let config = &block_transformer_zoo::preset(name).unwrap().model;
        let ids: Vec<i64> = (0..64).map(|i| 2 + (i * 37) % 50).collect();
        let batch = TokenBatch {
            ids: Tensor::<2, Int>::from_data(TensorData::new(ids, [2, 32]), &device),
            is_token: PaddingMask::full(),
            block_length: config.block_length(),
        };
        let model = config.init(3, &device);
        let full = model.clone().loss(&batch).into_scalar::<f32>();
        for precision in [Precision::Bf16Weights, Precision::Int8Weights] {
            let narrow = model.clone().with_precision(precision);
            for narrow in [narrow.clone(), narrow.prepared()] {
                let narrow = narrow.loss(&batch).into_scalar::<f32>();
                let difference = (full - narrow).abs();
                assert!(
                    difference > 0.0 && difference < 2e-3,
                    "{name}, {precision}: {full} {narrow}"
                );
            }
        }
    }
}

#[test]
fn weights_take_the_bytes_that_the_configuration_says() {
    for (name, config) in shapes() {
        let model = config.init(0, &Device::flex());
        assert_eq!(model.weight_bytes(), config.weight_bytes(Precision::F32), "{name}");
        let half = model.with_precision(Precision::Bf16Weights);
        assert_eq!(half.weight_bytes(), config.weight_bytes(Precision::Bf16Weights), "{name}");
    }
}

#[test]
fn integers_take_a_quarter_of_the_bytes_of_f32() {
    for name in ["small-block", "small-vanilla"] {
        let config = &block_transformer_zoo::preset(name).unwrap().model;
        let model = config.init(0, &Device::flex()).with_precision(Precision::Int8Weights);
        let (found, formula) =
            (model.weight_bytes() as f64, config.weight_bytes(Precision::Int8Weights) as f64);
        // the scales: 4 bytes per column
        assert!(found > formula && found < 1.03 * formula, "{name}: {found} {formula}");
    }
}
