//! Part of an image at another size, in memory that is used again.

use super::crop::Part;
use super::lines::{Across, MARGIN, ROWS, Rows};
use super::passes::Passes;
use super::resampling::Resampling;
use super::taps::Taps;

/// Interleaved RGB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) pixels: &'a [u8],
    /// Width, height.
    pub(super) size: [usize; 2],
}

/// What resampling an image takes; after the first few images nothing is allocated.
///
/// Rows are made one below the other first, then pixels beside each other: the row between the two passes is
/// rounded to bytes, as Pillow rounds what is between its passes.
#[derive(Debug, Default)]
pub(super) struct Resampler {
    passes: Passes,
    down: Taps,
    across: Taps,
    /// Rows between the passes.
    lines: [Vec<u8>; ROWS],
    /// What becomes of them.
    rows: Vec<u32>,
}

impl Resampler {
    /// Gives `take` each row of `part` at `size` (width, height, none of them zero), from the top: red, green
    /// and blue of a pixel from the lowest byte on. Of `source` only pixels that `part` touches have
    /// influence; it lies within.
    pub(super) fn resample(
        &mut self,
        source: Source<'_>,
        part: Part,
        size: [usize; 2],
        resampling: Resampling,
        mut take: impl FnMut(&[u32]),
    ) {
        // The whole pixels that the part touches, and the part within them.
        let [left, top] = [part.left.floor(), part.top.floor()];
        let touched = |end: f64, side: usize| end.ceil().min(side as f64);
        let width = touched(part.left + part.width, source.size[0]) - left;
        let height = touched(part.top + part.height, source.size[1]) - top;
        let stride = 3 * source.size[0];
        let rows = Rows { bytes: &source.pixels[top as usize * stride + 3 * left as usize..], stride };
        let part = Part {
            left: part.left - left,
            top: part.top - top,
            width: part.width.min(left + width - part.left),
            height: part.height.min(top + height - part.top),
        };
        let Some(kernel) = resampling.kernel() else {
            return self.nearest(rows, part, [width as usize, height as usize], size, take);
        };
        self.across.set(kernel, width as usize, part.left..part.left + part.width, size[0]);
        self.down.set(kernel, height as usize, part.top..part.top + part.height, size[1]);
        let Self { passes, down, across, lines, rows: done } = self;
        let length = 3 * across.pixels().len();
        for line in lines.iter_mut() {
            // What is behind the line weighs nothing.
            line.resize(length + 3 * across.weights_each() + MARGIN, 0);
        }
        done.resize(ROWS * size[0], 0);
        let rows = Rows { bytes: &rows.bytes[3 * across.pixels().start..], ..rows };
        let mut taps = down.iter();
        loop {
            let mut count = 0;
            for (line, tap) in lines.iter_mut().zip(taps.by_ref().take(ROWS)) {
                passes.down(rows, tap, down.precision(), &mut line[..length]);
                count += 1;
            }
            if count == 0 {
                return;
            }
            let lines = lines.each_ref().map(Vec::as_slice);
            passes.across(across, Across { lines, rows: done });
            done.chunks_exact(size[0]).take(count).for_each(&mut take);
        }
    }

    fn nearest(
        &mut self,
        rows: Rows<'_>,
        part: Part,
        touched: [usize; 2],
        size: [usize; 2],
        mut take: impl FnMut(&[u32]),
    ) {
        let step = [part.width / size[0] as f64, part.height / size[1] as f64];
        // Float to integer rounds down; the last pixel is in the part.
        let place = |at: f64, side: usize| (at as usize).min(side - 1);
        let mut y = part.top + 0.5 * step[1];
        for _ in 0..size[1] {
            let row = &rows.bytes[place(y, touched[1]) * rows.stride..];
            self.rows.clear();
            self.rows.extend((0..size[0]).map(|x| {
                let x = place(part.left + 0.5 * step[0] + step[0] * x as f64, touched[0]);
                u32::from_le_bytes([row[3 * x], row[3 * x + 1], row[3 * x + 2], 0])
            }));
            take(&self.rows);
            y += step[1];
        }
    }
}
