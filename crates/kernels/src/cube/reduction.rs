//! Cubes of rows, and sums over the units of a cube.

use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise};
use burn_cubecl::tensor::CubeTensor;

/// Units per cube, on devices that run them in parallel.
const UNITS: usize = 256;

/// Units of a cube for `count` elements. Without planes, the units of a cube run one after the other,
/// and one is enough.
pub(super) fn units_for(tensor: &CubeTensor, count: usize) -> usize {
    let planes = tensor.client.properties().hardware.plane_size_max > 1;
    if planes { UNITS.min(count.next_power_of_two()) } else { 1 }
}

/// At least one cube per row. A device may limit the number of cubes per axis, so that there can be more.
pub(super) fn one_cube_per_row(tensor: &CubeTensor, rows: usize) -> CubeCount {
    calculate_cube_count_elemwise(&tensor.client, rows, CubeDim::new_1d(1))
}

/// The row of a cube of [`one_cube_per_row`]. Cubes beyond the rows compute the last row again.
#[cube]
pub(super) fn own_row(rows: usize) -> usize {
    let mut row = CUBE_POS;
    if row >= rows {
        row = rows - 1;
    }
    row
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
