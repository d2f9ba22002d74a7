//! Texts about pictures, placed so that all texts of a picture look at it at once.
//!
//! A picture has far more positions than a text has, and what a layer attends to in it is large: texts that each had a
//! copy of it would spend most of their time reading copies.

use burn::tensor::{Device, Int, Tensor};

/// Pictures as a text model attends to them, and which row of a batch of texts is about which.
#[derive(Debug, Clone)]
pub(super) struct Seats {
    pictures: usize,
    /// Texts that a picture has room for.
    width: usize,
    /// Where rows do not fill the table of pictures and seats in order.
    moved: Option<Moved>,
}

#[derive(Debug, Clone)]
struct Moved {
    /// The row of each seat; an empty seat has the first row, whose result is not read.
    rows: Tensor<1, Int>,
    /// The seat of each row.
    seats: Tensor<1, Int>,
}

impl Seats {
    /// `of_rows` is the picture of each row, of `pictures`.
    pub(super) fn new(of_rows: &[usize], pictures: usize, device: &Device) -> Self {
        let mut taken = vec![0; pictures];
        let places: Vec<(usize, usize)> = of_rows
            .iter()
            .map(|picture| {
                taken[*picture] += 1;
                (*picture, taken[*picture] - 1)
            })
            .collect();
        let width = taken.iter().copied().max().unwrap_or(0);
        let seats: Vec<usize> = places.into_iter().map(|(picture, place)| picture * width + place).collect();
        let in_order =
            seats.len() == pictures * width && seats.iter().enumerate().all(|(row, seat)| row == *seat);
        let moved = (!in_order).then(|| {
            let mut rows = vec![0; pictures * width];
            seats.iter().enumerate().for_each(|(row, seat)| rows[*seat] = row as i32);
            let seats: Vec<i32> = seats.iter().map(|seat| *seat as i32).collect();
            Moved {
                rows: Tensor::from_ints(rows.as_slice(), device),
                seats: Tensor::from_ints(seats.as_slice(), device),
            }
        });
        Self { pictures, width, moved }
    }

    /// `[rows, n, width]` to one long text a picture, `[pictures, seats · n, width]`.
    pub(super) fn take(&self, x: Tensor<3>) -> Tensor<3> {
        let [_, length, width] = x.dims();
        let x = match &self.moved {
            Some(moved) => x.select(0, moved.rows.clone()),
            None => x,
        };
        x.reshape([self.pictures, self.width * length, width])
    }

    /// The inverse of [`Seats::take`].
    pub(super) fn leave(&self, x: Tensor<3>) -> Tensor<3> {
        let [_, length, width] = x.dims();
        let x = x.reshape([self.pictures * self.width, length / self.width, width]);
        match &self.moved {
            Some(moved) => x.select(0, moved.seats.clone()),
            None => x,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::read_back::floats;

    fn rows(count: usize) -> Tensor<3> {
        Tensor::<1, Int>::arange(0..2 * count as i64, &Device::flex()).float().reshape([count, 2, 1])
    }

    #[test]
    fn texts_sit_together_by_picture_and_come_back() {
        let seats = Seats::new(&[2, 0, 2, 0, 2], 3, &Device::flex());
        let taken = seats.take(rows(5));
        assert_eq!(taken.dims(), [3, 6, 1]);
        let seen = floats(taken.clone()).unwrap();
        assert_eq!(seen[..4], [2.0, 3.0, 6.0, 7.0], "rows 1 and 3 are about picture 0");
        assert_eq!(seen[12..], [0.0, 1.0, 4.0, 5.0, 8.0, 9.0], "rows 0, 2 and 4 are about picture 2");
        assert_eq!(floats(seats.leave(taken)).unwrap(), floats(rows(5)).unwrap());
    }

    #[test]
    fn full_rows_in_order_are_not_moved() {
        let seats = Seats::new(&[0, 0, 1, 1], 2, &Device::flex());
        assert!(seats.moved.is_none());
        assert_eq!(floats(seats.take(rows(4))).unwrap(), floats(rows(4)).unwrap());
        assert!(Seats::new(&[0, 1, 0, 1], 2, &Device::flex()).moved.is_some());
    }
}
