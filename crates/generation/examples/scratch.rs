use std::ops::ControlFlow;
use std::time::Instant;
use burn::tensor::Device;
use zoo_generation::{Options, generate};
fn main() {
    let mut args = std::env::args().skip(1);
    let preset = args.next().unwrap();
    let n: Vec<usize> = args.map(|a| a.parse().unwrap()).collect();
    let (batch, prompt, new) = (n[0], n[1], n[2]);
    let preset = zoo::preset(&preset).unwrap();
    let device = Device::flex();
    let model = preset.model.init(0, &device);
    let prompts: Vec<Vec<u32>> = (0..batch).map(|b| (0..prompt).map(|i| ((b * 31 + i * 17) % 50000 + 2) as u32).collect()).collect();
    let options = Options { max_tokens: new, eos: None, ..Options::default() };
    for _ in 0..3 {
        let t = Instant::now();
        let mut first = None;
        generate(&model, &preset.model, &prompts, &options, &device, |_, _| { first.get_or_insert(t.elapsed().as_secs_f64()); ControlFlow::Continue(()) }).unwrap();
        let all = t.elapsed().as_secs_f64();
        let f = first.unwrap();
        println!("{:.1} tokens/s all, {:.1} after the first; first {:.2}s", (batch * new) as f64 / all, (batch * (new - 1)) as f64 / (all - f), f);
    }
}
