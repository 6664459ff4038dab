//! Fits a line to points with AdamW: `cargo run --release --example fit_line`. Uses only the crate's safe API.

use schuss::{Common, Decay, Optimizer, optimizers};

fn main() -> Result<(), schuss::Error> {
    let points: Vec<(f32, f32)> = (0..100).map(|i| i as f32 / 50.0 - 1.0).map(|x| (x, 3.0 * x - 0.5)).collect();
    let hypers = [("beta1", 0.9), ("beta2", 0.999), ("eps", 1e-8), ("bias_correction", 1.0), ("keras_eps", 0.0)];
    let common = Common { lr: 0.05, weight_decay: 1e-4, decay: Decay::Decoupled, ..Common::default() };
    let mut adamw = Optimizer::new(optimizers::adam::adam(), &hypers, common)?;

    let (mut slope, mut offset) = ([0.0f32], [0.0f32]);
    for _ in 0..500 {
        let (mut d_slope, mut d_offset) = ([0.0f32], [0.0f32]);
        for (x, y) in &points {
            let error = slope[0] * x + offset[0] - y;
            d_slope[0] += 2.0 * error * x / points.len() as f32;
            d_offset[0] += 2.0 * error / points.len() as f32;
        }
        adamw.step(&mut [&mut slope, &mut offset], &[&d_slope, &d_offset])?;
    }
    println!("y = {:.3} x + {:.3}, from y = 3 x - 0.5", slope[0], offset[0]);
    assert!((slope[0] - 3.0).abs() < 0.01 && (offset[0] + 0.5).abs() < 0.01);
    Ok(())
}
