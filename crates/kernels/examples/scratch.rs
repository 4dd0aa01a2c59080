use std::time::Instant;
use burn::tensor::{Device, Distribution, Tensor};
fn main() {
    let device = Device::flex(); let reps: usize = std::env::args().nth(1).map_or(1, |a| a.parse().unwrap());
    for (k, n, copies) in [(768usize, 512usize, 1usize), (768, 3072, 1), (768, 3072, 24)] {
        for m in [1usize, 4, 16, 32, 47] {
            let x = Tensor::<2>::random([m, k], Distribution::Normal(0., 1.), &device);
            let ws: Vec<_> = (0..copies).map(|_| Tensor::<2>::random([k, n], Distribution::Normal(0., 1.), &device)).collect();
            let mut best = [f64::MAX; 2];
            for _ in 0..4 {
                let t = Instant::now();
                for w in &ws { std::hint::black_box(x.clone().matmul(w.clone())); }
                best[0] = best[0].min(t.elapsed().as_secs_f64());
                let t = Instant::now();
                for _ in 0..reps { for w in &ws { std::hint::black_box(zoo_kernels::linear(&x, w, None).unwrap()); } }
                best[1] = best[1].min(t.elapsed().as_secs_f64() / reps as f64);
            }
            let bytes = (k * n * 4 * copies) as f64; let flops = (2 * m * k * n * copies) as f64;
            println!("k {k} n {n} m {m}: flex {:.1} GB/s {:.1} GF | ours {:.1} GB/s {:.1} GF", bytes / best[0] / 1e9, flops / best[0] / 1e9, bytes / best[1] / 1e9, flops / best[1] / 1e9);
        }
    }
}
