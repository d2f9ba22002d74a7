//! Texts about images, placed so that all texts of an image look at it at once.
//!
//! An image has far more positions than a text has, and what a layer attends to in it is large: texts that
//! each had a copy of it would spend most of their time reading copies.

use burn::tensor::{Device, Int, Tensor};

/// Images as a text model attends to them, and which row of a batch of texts is about which.
#[derive(Debug, Clone)]
pub(super) struct RowsByImage {
    images: usize,
    /// Texts that an image has room for.
    room: usize,
    /// Where rows do not fill the table of images and places in order.
    moved: Option<Moved>,
}

#[derive(Debug, Clone)]
struct Moved {
    /// The row of each place; an empty place has the first row, whose result is not read.
    rows: Tensor<1, Int>,
    /// The place of each row.
    places: Tensor<1, Int>,
}

impl RowsByImage {
    /// `of_rows` is the image of each row, of `images`.
    pub(super) fn new(of_rows: &[usize], images: usize, device: &Device) -> Self {
        let mut taken = vec![0; images];
        let placed: Vec<(usize, usize)> = of_rows
            .iter()
            .map(|image| {
                taken[*image] += 1;
                (*image, taken[*image] - 1)
            })
            .collect();
        let room = taken.iter().copied().max().unwrap_or(0);
        let places: Vec<usize> = placed.into_iter().map(|(image, nth)| image * room + nth).collect();
        let in_order =
            places.len() == images * room && places.iter().enumerate().all(|(row, place)| row == *place);
        let moved = (!in_order).then(|| {
            let mut rows = vec![0; images * room];
            places.iter().enumerate().for_each(|(row, place)| rows[*place] = row as i32);
            let places: Vec<i32> = places.iter().map(|place| *place as i32).collect();
            Moved {
                rows: Tensor::from_ints(rows.as_slice(), device),
                places: Tensor::from_ints(places.as_slice(), device),
            }
        });
        Self { images, room, moved }
    }

    /// `[rows, n, width]` to one long text an image, `[images, places · n, width]`.
    pub(super) fn group(&self, x: Tensor<3>) -> Tensor<3> {
        let [_, length, width] = x.dims();
        let x = match &self.moved {
            Some(moved) => x.select(0, moved.rows.clone()),
            None => x,
        };
        x.reshape([self.images, self.room * length, width])
    }

    /// The inverse of [`RowsByImage::group`].
    pub(super) fn ungroup(&self, x: Tensor<3>) -> Tensor<3> {
        let [_, length, width] = x.dims();
        let x = x.reshape([self.images * self.room, length / self.room, width]);
        match &self.moved {
            Some(moved) => x.select(0, moved.places.clone()),
            None => x,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use blip2_tensors::device::read_back::floats;

    fn rows(count: usize) -> Tensor<3> {
        Tensor::<1, Int>::arange(0..2 * count as i64, &Device::flex()).float().reshape([count, 2, 1])
    }

    #[test]
    fn texts_stand_together_by_image_and_come_back() {
        let grouping = RowsByImage::new(&[2, 0, 2, 0, 2], 3, &Device::flex());
        let taken = grouping.group(rows(5));
        assert_eq!(taken.dims(), [3, 6, 1]);
        let seen = floats(taken.clone()).unwrap();
        assert_eq!(seen[..4], [2.0, 3.0, 6.0, 7.0], "rows 1 and 3 are about picture 0");
        assert_eq!(seen[12..], [0.0, 1.0, 4.0, 5.0, 8.0, 9.0], "rows 0, 2 and 4 are about picture 2");
        assert_eq!(floats(grouping.ungroup(taken)).unwrap(), floats(rows(5)).unwrap());
    }

    #[test]
    fn full_rows_in_order_are_not_moved() {
        let grouping = RowsByImage::new(&[0, 0, 1, 1], 2, &Device::flex());
        assert!(grouping.moved.is_none());
        assert_eq!(floats(grouping.group(rows(4))).unwrap(), floats(rows(4)).unwrap());
        assert!(RowsByImage::new(&[0, 1, 0, 1], 2, &Device::flex()).moved.is_some());
    }
}
