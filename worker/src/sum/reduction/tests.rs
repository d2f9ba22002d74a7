use std::ops::Range;

use blip2_collective::SumTree;
use blip2_tensors::train::buckets::GradientBuckets;
use blip2_tensors::train::flat::FlatLayout;
use blip2_tensors::train::optimizer::{AdamW, Moments};
use burn::tensor::Device;

use super::super::landing::{Beside, LandingPlan};
use super::*;
use crate::sum::next::NextBuffers;
use crate::sum::test_members::TestMembers;

const SLOTS: u32 = 8;
fn parts() -> GradientBuckets {
    let layer = |index: usize| format!("Qformer.bert.encoder.layer.{index}.weight");
    let mut shapes: Vec<(String, Vec<usize>)> = (0..3).map(|index| (layer(index), vec![700])).collect();
    shapes.push(("query_tokens".into(), vec![33]));
    shapes.push(("temp".into(), vec![1]));
    GradientBuckets::of(&FlatLayout::new(shapes), 1)
}

fn value(slot: u32, element: usize) -> f32 {
    let hash = (element as u32 ^ (slot << 20)).wrapping_mul(0x9E37_79B9);
    (hash >> 8) as f32 * 10f32.powi((hash % 7) as i32 - 3)
}

/// What slot `slot` gives for part `part`.
fn gradient(parts: &GradientBuckets, part: usize, slot: u32) -> Vec<f32> {
    let elements = parts.buckets()[part].ranges.iter().cloned().flatten();
    elements.map(|element| value(slot, element)).collect()
}

fn give_values(slots: &mut Slots<'_>, slot: u32) -> Result<()> {
    slots.push_values(move || Ok(vec![value(slot, 1), slot as f32]))
}

fn give_part(slots: &mut Slots<'_>, part: usize, slot: u32) -> Result<()> {
    let values = gradient(&parts(), part, slot);
    slots.give(move |sums| sums.push_part(part, values))
}

/// Gives every own slot's gradient and values.
fn fill(slots: &mut Slots<'_>, own: Range<u32>) -> Result<()> {
    for slot in own {
        give_values(slots, slot)?;
        (0..parts().buckets().len()).try_for_each(|part| give_part(slots, part, slot))?;
    }
    Ok(())
}

fn unclipped() -> LandingPlan {
    LandingPlan {
        adamw: AdamW { beta1: 0.9, beta2: 0.98, epsilon: 1e-8, weight_decay: 0.05 },
        update: 1,
        learning_rate: 0.1,
        clip_norm: 0.0,
        bounded: None,
        divisor: None,
    }
}

struct Group(TestMembers);

impl Group {
    fn new(members: usize) -> Self {
        Self(TestMembers::new(members, SLOTS))
    }

    /// What member `rank` gets.
    fn sum(
        &self,
        rank: usize,
        overlap: bool,
        fill: impl FnOnce(&mut Slots<'_>, Range<u32>) -> Result<()>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let parts = parts();
        let landing = Landing::new(unclipped(), &parts, vec![f32::NAN; 7], None, Stopwatch::default());
        self.land(rank, overlap, landing, &parts, fill)
    }

    fn land(
        &self,
        rank: usize,
        overlap: bool,
        landing: Landing<'_>,
        parts: &GradientBuckets,
        fill: impl FnOnce(&mut Slots<'_>, Range<u32>) -> Result<()>,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let members = self.0.peers(rank);
        let tree = SumTree::new(SLOTS).unwrap();
        let own = members.world.own().unwrap().slots.clone();
        let device = Device::flex();
        let plan = SumPlan { parts, tree, slots: own.clone(), overlap, device };
        let fill = |slots: &mut Slots<'_>, _: &mut Stopwatch| fill(slots, own);
        let landed = members.sum(&plan, landing, &mut Stopwatch::default(), fill)?;
        Ok((landed.gradients, landed.values))
    }
}

#[test]
fn neither_the_members_nor_the_overlap_change_a_bit() {
    let alone = Group::new(1).sum(0, true, fill).unwrap();
    assert_eq!(alone.0.len(), 2134);
    assert_eq!(alone.1[1], 28.0);
    assert!(Group::new(1).sum(0, false, fill).unwrap() == alone);
    for members in [2, 4] {
        for overlap in [true, false] {
            let group = Group::new(members);
            std::thread::scope(|scope| {
                let all = (0..members).map(|rank| {
                    let group = &group;
                    scope.spawn(move || group.sum(rank, overlap, fill).unwrap())
                });
                for member in all.collect::<Vec<_>>() {
                    assert!(member.join().unwrap() == alone, "{members} members, overlap {overlap}");
                }
            });
        }
    }
}

/// The next part is given when the update of the one before it is made: were one to wait for the other,
/// it would never be.
#[test]
fn a_part_is_summed_and_updated_before_the_next_is_there() {
    for members in [1, 2] {
        let group = Group::new(members);
        let member = |rank: usize| {
            let parts = parts();
            let (parameters, moments) = (vec![1.0; parts.len()], Moments::zeros(parts.len()));
            let (buffers, device) = (NextBuffers::default(), Device::flex().autodiff());
            let beside = Some(Beside { parameters: &parameters, moments: &moments, buffers, device });
            let landing = Landing::new(unclipped(), &parts, Vec::new(), beside, Stopwatch::default());
            let updated = landing.updated();
            let fill = |slots: &mut Slots<'_>, mut own: Range<u32>| {
                let last = own.next_back().unwrap();
                fill(slots, own)?;
                give_values(slots, last)?;
                for part in 0..parts.buckets().len() {
                    while updated.load(Ordering::Acquire) < part {
                        std::thread::yield_now();
                    }
                    give_part(slots, part, last)?;
                }
                Ok(())
            };
            group.land(rank, true, landing, &parts, fill).unwrap();
            assert_eq!(updated.load(Ordering::Acquire), parts.buckets().len());
        };
        std::thread::scope(|scope| {
            let member = &member;
            for rank in 0..members {
                scope.spawn(move || member(rank));
            }
        });
    }
}

#[test]
fn an_abort_ends_all_parts_and_the_backward_pass() {
    let group = Group::new(2);
    // The other member never comes; its absence is not waited for.
    let result = group.sum(0, true, |slots, own| {
        fill(slots, own.clone())?;
        group.0.exchanges[0].abort(1, "a member is lost");
        // Whatever is given after the reducer heard of it is refused.
        loop {
            slots.give(|sums| match &sums.target {
                Target::Peers(reducer) if reducer.is_closed() => Err(closed()),
                _ => Ok(()),
            })?;
        }
    });
    let error = result.unwrap_err().to_string();
    assert!(error.contains("a member is lost"), "{error}");
}

#[test]
fn an_error_of_the_computation_ends_the_parts_in_flight() {
    let group = Group::new(2);
    let result = group.sum(0, true, |slots, own| {
        fill(slots, own)?;
        Err(WorkerError::Protocol("the device is gone".into()))
    });
    assert!(result.unwrap_err().to_string().contains("the device is gone"));
}

#[test]
fn an_error_while_sums_are_taken_up_is_the_reason_that_is_told() {
    for overlap in [true, false] {
        let result = Group::new(1).sum(0, overlap, |slots, own| {
            fill(slots, own.clone())?;
            // A slot more than there are.
            give_values(slots, own.end)
        });
        let error = result.unwrap_err().to_string();
        assert!(error.contains("a slot more"), "{error}");
    }
}
