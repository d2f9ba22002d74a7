//! The gradient of image features that other rows had as negatives, on its way home.

use burn::tensor::Tensor;

use blip2_model_files::error::ModelError;

/// The gradient of one image's features as the negative of one text.
#[derive(Debug, Clone)]
pub struct NegativeGradient {
    /// Global row of the text.
    pub text: usize,
    /// Global row of the image.
    pub image: usize,
    /// `[1, P, Dv]`, without autodiff.
    pub gradient: Tensor<3>,
}

/// Cuts the gradient of a slot's negative images apart.
///
/// # Shapes
/// - images: for each of the slot's texts, the global row of its negative image; gradient `[b, P, Dv]`
///
/// # Errors
/// Not an image for each row of the gradient.
pub fn negative_gradients(
    first_row: usize,
    images: &[usize],
    gradient: Tensor<3>,
) -> Result<Vec<NegativeGradient>, ModelError> {
    let rows = gradient.dims()[0];
    if images.len() != rows {
        let reason = format!("{} images for {rows} rows of a gradient", images.len());
        return Err(ModelError::input("negatives", reason));
    }
    let of_row = |(row, image): (usize, &usize)| NegativeGradient {
        text: first_row + row,
        image: *image,
        gradient: gradient.clone().narrow(0, row, 1),
    };
    Ok(images.iter().enumerate().map(of_row).collect())
}

/// Adds to the gradient of a slot's own features what other rows found, this slot's among them.
///
/// An image's sum begins with its own slot's gradient and goes on in the order of the texts' rows, whatever
/// order `negatives` came in: it depends neither on how the batch is cut into slots nor on who computed them.
///
/// # Shapes
/// - own and output `[b, P, Dv]`, of the images from row `first_row`
///
/// # Errors
/// An image of another slot, one text's gradient twice, or one of another shape.
pub fn add_negatives(
    own: Tensor<3>,
    first_row: usize,
    mut negatives: Vec<NegativeGradient>,
) -> Result<Tensor<3>, ModelError> {
    let [rows, tokens, width] = own.dims();
    negatives.sort_by_key(|negative| negative.text);
    if let Some(twice) = negatives.windows(2).find(|pair| pair[0].text == pair[1].text) {
        return Err(ModelError::input("negatives", format!("text {} came twice", twice[0].text)));
    }
    let mut sums: Vec<Tensor<3>> = (0..rows).map(|row| own.clone().narrow(0, row, 1)).collect();
    for NegativeGradient { text, image, gradient } in negatives {
        let shape = gradient.dims();
        let sum = image.checked_sub(first_row).and_then(|row| sums.get_mut(row));
        let Some(sum) = sum.filter(|_| shape == [1, tokens, width]) else {
            let last = first_row + rows - 1;
            let reason = format!(
                "text {text} sends {shape:?} for image {image}; here are {first_row} to {last}, [1, {tokens}, {width}]"
            );
            return Err(ModelError::input("negatives", reason));
        };
        *sum = sum.clone() + gradient;
    }
    Ok(Tensor::cat(sums, 0))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int};

    use super::*;
    use blip2_tensors::device::read_back::floats;

    fn wave(rows: usize, speed: f32) -> Tensor<3> {
        let count = (rows * 6) as i64;
        let wave = Tensor::<1, Int>::arange(0..count, &Device::flex()).float() * speed;
        wave.sin().reshape([rows, 3, 2])
    }

    /// The bits of all images' gradients with the batch cut into slots of `per_slot` rows.
    fn cut(per_slot: usize, images: &[usize]) -> Vec<u32> {
        let (own, found) = (wave(6, 0.73), wave(6, 0.31));
        let slots: Vec<usize> = (0..6).step_by(per_slot).collect();
        // Slots are done in another order than their rows have.
        let sent: Vec<NegativeGradient> = slots
            .iter()
            .rev()
            .flat_map(|first| {
                let gradient = found.clone().narrow(0, *first, per_slot);
                negative_gradients(*first, &images[*first..first + per_slot], gradient).unwrap()
            })
            .collect();
        let home = |first: &usize| {
            let here = |negative: &&NegativeGradient| (*first..first + per_slot).contains(&negative.image);
            let arrived = sent.iter().filter(here).cloned().collect();
            let sums = add_negatives(own.clone().narrow(0, *first, per_slot), *first, arrived).unwrap();
            floats(sums).unwrap()
        };
        slots.iter().flat_map(home).map(f32::to_bits).collect()
    }

    #[test]
    fn a_gradient_is_the_same_however_the_batch_is_cut() {
        let images = [3, 0, 3, 0, 3, 3];
        let whole = cut(1, &images);
        for per_slot in [2, 3, 6] {
            assert_eq!(cut(per_slot, &images), whole, "{per_slot}");
        }
        let (own, found) = (floats(wave(6, 0.73)).unwrap(), floats(wave(6, 0.31)).unwrap());
        let at = |row: usize, values: &[f32]| values[row * 6 + 4];
        let want = (((at(3, &own) + at(0, &found)) + at(2, &found)) + at(4, &found)) + at(5, &found);
        assert_eq!(whole[3 * 6 + 4], want.to_bits());
        assert_eq!(whole[5 * 6 + 4], at(5, &own).to_bits());
    }

    #[test]
    fn what_does_not_belong_here_is_refused() {
        let sent = |text, image| NegativeGradient { text, image, gradient: wave(1, 0.3) };
        let add = |negatives| add_negatives(wave(2, 0.7), 4, negatives).map_err(|error| error.to_string());
        assert!(add(vec![sent(0, 4), sent(9, 5)]).is_ok());
        assert!(add(vec![sent(0, 3)]).unwrap_err().contains("image 3"));
        assert!(add(vec![sent(0, 6)]).unwrap_err().contains("4 to 5"));
        assert!(add(vec![sent(2, 4), sent(2, 5)]).unwrap_err().contains("twice"));
        assert!(negative_gradients(0, &[1], wave(2, 0.7)).is_err());
    }
}
