//! Sums over the units of a cube.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// Units per cube, on devices that run them in parallel.
const UNITS: usize = 256;

/// Units of a cube for `count` elements. Without planes, the units of a cube run one after the other,
/// and one is enough.
pub(super) fn units_for(tensor: &CubeTensor, count: usize) -> usize {
    let planes = tensor.client.properties().hardware.plane_size_max > 1;
    if planes { UNITS.min(count.next_power_of_two()) } else { 1 }
}

/// The sum over the units of a cube, in a fixed order and the same in every unit.
#[cube]
pub(super) fn total(own: f32, sums: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    sums[UNIT_POS as usize] = own;
    sync_cube();
    let mut sum = f32::new(0.0);
    for unit in 0..units {
        sum += sums[unit];
    }
    sync_cube();
    sum
}
