//! A backward pass in segments: the gradients of one layer are there before those of the layer below are
//! computed.
//!
//! Where the forward pass crosses from one [`Segment`] into the next it calls `Tape::cut`: the tensor is
//! detached, and what follows hangs on a new leaf. [`Tape::backward`] then differentiates segment after
//! segment, from the heads down, and hands each leaf's gradient to the tensor it was cut from. The chain rule
//! is the same, so is the gradient; but after each segment its parameters' gradients are final and can
//! travel.
//!
//! A leaf may be read in several segments (the image's embeddings, in every layer that sees them): its
//! gradient is added up in the order of the segments, from the top.

use burn::tensor::{Gradients, Tensor};

/// A stretch of the forward pass between two cuts, from the bottom up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Segment {
    /// Patches, class and positions of a trained image encoder.
    Patches,
    /// A block of a trained image encoder.
    Block(usize),
    /// Embeddings of words and positions, the queries, the norm of the image features.
    Inputs,
    /// A Q-Former layer, in all passes.
    Layer(usize),
    /// What follows the last layer.
    Heads,
}

/// The cuts of one forward pass.
///
/// [`Tape::whole`] cuts nothing: for inference, and for a gradient in one piece.
#[derive(Debug, Default)]
pub struct Tape {
    cuts: Option<Vec<Cut>>,
}

#[derive(Debug)]
struct Cut {
    /// Where `output` was computed.
    segment: Segment,
    output: Tensor<3>,
    /// The leaf that stands for `output` in the segments above.
    leaf: Tensor<3>,
    /// Without autodiff.
    gradient: Option<Tensor<3>>,
}

impl Tape {
    /// A tape that is not cut.
    pub fn whole() -> Self {
        Self { cuts: None }
    }

    /// A tape that is cut at every boundary; the tensors must be on an autodiff device.
    pub fn segmented() -> Self {
        Self { cuts: Some(Vec::new()) }
    }

    /// Ends `segment` at `output`; the segments above go on from what is returned.
    pub fn cut(&mut self, segment: Segment, output: Tensor<3>) -> Tensor<3> {
        let Some(cuts) = &mut self.cuts else { return output };
        let leaf = output.clone().detach().require_grad();
        cuts.push(Cut { segment, output, leaf: leaf.clone(), gradient: None });
        leaf
    }

    /// Differentiates `objective` and calls `done` with the gradients of each segment's parameters, from
    /// [`Segment::Heads`] down; a tape that was not cut has one segment, [`Segment::Inputs`].
    ///
    /// A parameter that several segments use has a gradient in each of them, to be added up.
    ///
    /// # Errors
    /// The first error of `done`, after which nothing more is computed.
    pub fn backward<E>(
        self,
        objective: Tensor<1>,
        mut done: impl FnMut(Segment, &mut Gradients) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut cuts = self.cuts.unwrap_or_default();
        let mut segment = if cuts.is_empty() { Segment::Inputs } else { Segment::Heads };
        let mut objective = Some(objective);
        while let Some(value) = objective {
            let mut gradients = value.backward();
            for cut in &mut cuts {
                let Some(gradient) = cut.leaf.grad_remove(&mut gradients) else { continue };
                cut.gradient = Some(match cut.gradient.take() {
                    Some(above) => above + gradient,
                    None => gradient,
                });
            }
            done(segment, &mut gradients)?;
            objective = next_objective(&mut cuts, &mut segment);
        }
        Ok(())
    }
}

/// Takes the cuts of the highest segment left: the sum whose gradient is that segment's.
fn next_objective(cuts: &mut Vec<Cut>, segment: &mut Segment) -> Option<Tensor<1>> {
    let mut objective = None;
    while objective.is_none() && !cuts.is_empty() {
        let highest = cuts.iter().map(|cut| cut.segment).max()?;
        *segment = highest;
        for cut in cuts.extract_if(.., |cut| cut.segment == highest) {
            // An output that nothing above has used has no gradient.
            let Some(gradient) = cut.gradient else { continue };
            let share = (cut.output * gradient).sum();
            objective = Some(match objective {
                Some(sum) => sum + share,
                None => share,
            });
        }
    }
    objective
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// Two layers that both read `image`, with one weight used in two segments.
    fn run(mut tape: Tape) -> (Vec<Segment>, [f32; 3]) {
        let device = Device::flex().autodiff();
        let leaf = |value: f32| Tensor::<3>::full([1, 1, 2], value, &device).require_grad();
        let (shared, first, second) = (leaf(0.5), leaf(2.0), leaf(3.0));
        let image = tape.cut(Segment::Inputs, shared.clone() * 1.5);
        let hidden = tape.cut(Segment::Inputs, shared.clone().exp());
        let unused = tape.cut(Segment::Layer(0), hidden.clone());
        let hidden = tape.cut(Segment::Layer(0), hidden * first.clone() + image.clone());
        let hidden = tape.cut(Segment::Layer(1), (hidden * second.clone()).sin() * image);
        drop(unused);
        let objective = (hidden.exp() * shared.clone()).sum();
        let mut order = Vec::new();
        let mut sums = [0.0; 3];
        tape.backward(objective, |segment, gradients| {
            order.push(segment);
            for (sum, leaf) in sums.iter_mut().zip([&shared, &first, &second]) {
                if let Some(gradient) = leaf.grad_remove(gradients) {
                    *sum += gradient.sum().into_scalar::<f32>();
                }
            }
            Ok::<_, ()>(())
        })
        .unwrap();
        (order, sums)
    }

    #[test]
    fn segments_have_the_gradient_of_the_whole() {
        let (whole_order, whole) = run(Tape::whole());
        let (order, segmented) = run(Tape::segmented());
        assert_eq!(whole_order, [Segment::Inputs]);
        assert_eq!(order, [Segment::Heads, Segment::Layer(1), Segment::Layer(0), Segment::Inputs]);
        for (whole, segmented) in whole.iter().zip(segmented) {
            assert!((whole - segmented).abs() <= 1e-6 * whole.abs(), "{whole} and {segmented}");
        }
    }

    #[test]
    fn an_error_ends_the_backward_pass() {
        let device = Device::flex().autodiff();
        let mut tape = Tape::segmented();
        let leaf = Tensor::<3>::ones([1, 1, 1], &device).require_grad();
        let hidden = tape.cut(Segment::Inputs, leaf * 2.0);
        let mut calls = 0;
        let result = tape.backward(hidden.sum().reshape([1]), |_, _| {
            calls += 1;
            Err("stop")
        });
        assert_eq!((result, calls), (Err("stop"), 1));
    }
}
