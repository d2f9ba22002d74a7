//! What a JPEG's segments say of its colours and its coding, judged as libjpeg does.

use super::markers::next_marker;

/// Segments.
const START_OF_SCAN: u8 = 0xda;
const APP0: u8 = 0xe0;
const APP14: u8 = 0xee;
/// Bytes of Adobe's segment up to the transform, which is the last one.
const ADOBE: usize = 12;

/// The header of a JPEG up to its first scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JpegFrame {
    /// Marker of the start of the frame, which names the coding.
    coding: u8,
    /// Bits of a sample.
    precision: u8,
    /// Height, then width, pixels.
    pub(crate) sides: [u16; 2],
    components: Vec<Component>,
    jfif: bool,
    /// Adobe's colour transform.
    adobe: Option<u8>,
    /// Where Adobe's segment has its name.
    adobe_name: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Component {
    name: u8,
    /// Sampling factors, horizontal and vertical.
    sampling: [u8; 2],
}

/// What the components of a JPEG mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JpegColours {
    Grey,
    YCbCr,
    Rgb,
    Cmyk,
    Ycck,
}

impl JpegFrame {
    /// Reads the segments; `None` when the header has no frame.
    pub(crate) fn of(encoded: &[u8]) -> Option<Self> {
        let mut at = 2;
        let (mut jfif, mut adobe, mut found) = (false, None, None::<(u8, &[u8])>);
        let mut adobe_name = None;
        loop {
            let (kind, after) = next_marker(encoded, at)?;
            if kind == START_OF_SCAN {
                break;
            }
            // Markers without a length.
            if matches!(kind, 0x01 | 0xd0..=0xd9) {
                at = after;
                continue;
            }
            let length = encoded.get(after..after + 2)?;
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            let body = encoded.get(after + 2..after + length)?;
            match kind {
                // Tables of codes, what is reserved, and arithmetic conditioning share the numbers of frames.
                0xc4 | 0xc8 | 0xcc => {}
                0xc0..=0xcf => found = Some((kind, body)),
                APP0 => jfif |= body.starts_with(b"JFIF\0"),
                APP14 if body.len() >= ADOBE && body.starts_with(b"Adobe") => {
                    (adobe, adobe_name) = (Some(body[ADOBE - 1]), Some(after + 2));
                }
                _ => {}
            }
            at = after + length;
        }
        let (coding, body) = found?;
        let (head, components) = body.split_at_checked(6)?;
        let components = components.chunks_exact(3).take(usize::from(head[5]));
        let components: Vec<_> = components
            .map(|part| Component { name: part[0], sampling: [part[1] >> 4, part[1] & 15] })
            .collect();
        let whole = components.len() == usize::from(head[5])
            && components.iter().flat_map(|part| part.sampling).all(|factor| (1..=4).contains(&factor));
        let side = |place: usize| u16::from_be_bytes([head[place], head[place + 1]]);
        let sides = [side(1), side(3)];
        whole.then_some(Self { coding, precision: head[0], sides, components, jfif, adobe, adobe_name })
    }

    /// Why no decoder here reads it.
    pub(crate) fn unreadable(&self) -> Option<String> {
        let coding = match self.coding {
            0xc0..=0xc2 => None,
            0xc3 => Some("lossless coding"),
            0xc9..=0xcb => Some("arithmetic coding"),
            _ => Some("hierarchical coding"),
        };
        if let Some(coding) = coding {
            return Some(format!("it is a JPEG with {coding}, which is not read"));
        }
        if self.precision != 8 {
            return Some(format!(
                "it is a JPEG of {} bits a sample, of which only 8 are read",
                self.precision
            ));
        }
        let count = self.components.len();
        if self.colours().is_none() {
            return Some(format!("it is a JPEG of {count} components, which no colours are known for"));
        }
        (count == 4 && !self.is_ordinary())
            .then(|| "it is a JPEG of four colours in an order or sampling that is not read".to_owned())
    }

    /// The colours, as libjpeg finds them: JFIF before Adobe's transform, and that before the components'
    /// names.
    pub(crate) fn colours(&self) -> Option<JpegColours> {
        let names: Vec<u8> = self.components.iter().map(|part| part.name).collect();
        match (self.components.len(), self.jfif, self.adobe) {
            (1, ..) => Some(JpegColours::Grey),
            (3, true, _) => Some(JpegColours::YCbCr),
            (3, false, Some(0)) => Some(JpegColours::Rgb),
            (3, false, Some(_)) => Some(JpegColours::YCbCr),
            (3, false, None) if names == *b"RGB" => Some(JpegColours::Rgb),
            (3, false, None) => Some(JpegColours::YCbCr),
            (4, _, None | Some(0)) => Some(JpegColours::Cmyk),
            (4, _, Some(_)) => Some(JpegColours::Ycck),
            _ => None,
        }
    }

    /// Where the name in Adobe's segment begins, of a transform that nobody has defined.
    pub(crate) fn undefined_transform(&self) -> Option<usize> {
        self.adobe_name.filter(|_| !matches!(self.adobe, Some(0..=2)))
    }

    /// Whether the fast decoder finds the same colours and knows the sampling: powers of two, of which the
    /// first component's is the finest and the coarsest is one.
    pub(crate) fn is_ordinary(&self) -> bool {
        let named_rgb =
            self.components.len() == 3 && self.components.iter().map(|part| part.name).eq(*b"RGB");
        let colours = match (self.components.len(), self.adobe) {
            (1, None | Some(0..=2)) => Some(JpegColours::Grey),
            (3, None | Some(0..=2)) if named_rgb => Some(JpegColours::Rgb),
            (3, Some(0)) => Some(JpegColours::Rgb),
            (3, None | Some(1)) => Some(JpegColours::YCbCr),
            (4, None | Some(0)) => Some(JpegColours::Cmyk),
            (4, Some(2)) => Some(JpegColours::Ycck),
            _ => None,
        };
        let coarsest = |side: usize| self.components.iter().map(|part| part.sampling[side]).min();
        let from_one = self.components.len() == 1 || [coarsest(0), coarsest(1)] == [Some(1); 2];
        let powers = self.components.iter().flat_map(|part| part.sampling).all(u8::is_power_of_two);
        colours.is_some() && colours == self.colours() && self.ratios().is_some() && from_one && powers
    }

    /// By how much more finely the first component is sampled than the coarsest one, horizontally or
    /// vertically; `None` when it is not the finest or no multiple.
    fn ratios(&self) -> Option<u32> {
        let first = self.components.first()?.sampling;
        let ratio = |of: u8, part: u8| of.is_multiple_of(part).then(|| u32::from(of / part));
        self.components.iter().try_fold(1, |most, part| {
            let [across, down] = [0, 1].map(|side| ratio(first[side], part.sampling[side]));
            Some(most.max(across?).max(down?))
        })
    }

    /// By how much an image of this header may be reduced where `divisor` is wanted, so that no component is
    /// reduced below the size of the result: those that are stored smaller are so much smaller already. 1, 2,
    /// 4 or 8.
    pub(crate) fn reduction(&self, divisor: u32) -> u32 {
        let ratio = self.ratios().unwrap_or(divisor).max(1);
        let most = (divisor / ratio).max(1);
        1 << most.ilog2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[0xff, kind], &(body.len() as u16 + 2).to_be_bytes()[..], body].concat()
    }

    fn frame(coding: u8, jfif: bool, adobe: Option<u8>, parts: &[(u8, u8)]) -> JpegFrame {
        let mut bytes = vec![0xff, 0xd8];
        if jfif {
            bytes.extend(segment(APP0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"));
        }
        if let Some(transform) = adobe {
            bytes.extend(segment(APP14, &[b"Adobe\0\x64\0\0\0\0".as_slice(), &[transform]].concat()));
        }
        let parts: Vec<u8> = parts.iter().flat_map(|(name, sampling)| [*name, *sampling, 0]).collect();
        bytes.extend(segment(coding, &[&[8, 0, 9, 0, 7, parts.len() as u8 / 3], parts.as_slice()].concat()));
        bytes.extend(segment(START_OF_SCAN, &[0]));
        JpegFrame::of(&bytes).unwrap()
    }

    const USUAL: [(u8, u8); 3] = [(1, 0x22), (2, 0x11), (3, 0x11)];
    const NAMED: [(u8, u8); 3] = [(b'R', 0x11), (b'G', 0x11), (b'B', 0x11)];
    const FOUR: [(u8, u8); 4] = [(1, 0x11), (2, 0x11), (3, 0x11), (4, 0x11)];

    #[test]
    fn colours_are_those_that_libjpeg_finds() {
        use JpegColours::{Cmyk, Rgb, YCbCr, Ycck};
        for (jfif, adobe, parts, colours, ordinary) in [
            (true, None, &USUAL[..], YCbCr, true),
            (true, Some(0), &USUAL, YCbCr, false),
            (true, Some(1), &USUAL, YCbCr, true),
            (false, Some(0), &USUAL, Rgb, true),
            (false, Some(2), &USUAL, YCbCr, false),
            (false, Some(9), &USUAL, YCbCr, false),
            (false, None, &NAMED, Rgb, true),
            (true, None, &NAMED, YCbCr, false),
            (false, Some(1), &NAMED, YCbCr, false),
            (false, None, &FOUR, Cmyk, true),
            (true, Some(0), &FOUR, Cmyk, true),
            (false, Some(2), &FOUR, Ycck, true),
        ] {
            let frame = frame(0xc0, jfif, adobe, parts);
            assert_eq!(frame.colours(), Some(colours), "{frame:?}");
            assert_eq!(frame.is_ordinary(), ordinary, "{frame:?}");
            assert_eq!((frame.sides, frame.unreadable()), ([9, 7], None), "{frame:?}");
        }
    }

    #[test]
    fn samplings_that_the_fast_decoder_does_not_know_are_told() {
        for (first, other, ordinary) in [
            (0x11, 0x11, true),
            (0x22, 0x11, true),
            (0x21, 0x11, true),
            (0x41, 0x11, true),
            (0x11, 0x22, false),
            (0x12, 0x21, false),
            (0x12, 0x12, false),
            (0x22, 0x12, false),
            (0x31, 0x21, false),
            (0x31, 0x11, false),
        ] {
            let frame = frame(0xc0, true, None, &[(1, first), (2, other), (3, other)]);
            assert_eq!(frame.is_ordinary(), ordinary, "{first:x} {other:x}");
        }
        assert!(frame(0xc0, true, None, &[(1, 0x22)]).is_ordinary(), "of one component it means nothing");
    }

    #[test]
    fn what_is_not_read_is_named() {
        for (coding, reason) in
            [(0xc3, "lossless"), (0xc9, "arithmetic"), (0xca, "arithmetic"), (0xc5, "hierarchical")]
        {
            let unreadable = frame(coding, true, None, &USUAL).unreadable().unwrap();
            assert!(unreadable.contains(reason), "{unreadable}");
        }
        assert!(frame(0xc1, true, None, &FOUR[..2]).unreadable().unwrap().contains("2 components"));
        assert!(frame(0xc1, true, Some(7), &FOUR).unreadable().is_some());
        let deep = JpegFrame { precision: 12, ..frame(0xc1, true, None, &USUAL) };
        assert!(deep.unreadable().unwrap().contains("12 bits"));
    }

    #[test]
    fn no_component_is_reduced_below_the_result() {
        for (sampling, reductions) in [
            (0x11, [1, 2, 4, 8]),
            (0x21, [1, 1, 2, 4]),
            (0x12, [1, 1, 2, 4]),
            (0x22, [1, 1, 2, 4]),
            (0x41, [1, 1, 1, 2]),
            (0x14, [1, 1, 1, 2]),
            (0x31, [1, 1, 1, 2]),
        ] {
            let frame = frame(0xc0, true, None, &[(1, sampling), (2, 0x11), (3, 0x11)]);
            assert_eq!([1, 2, 4, 8].map(|divisor| frame.reduction(divisor)), reductions, "{sampling:x}");
        }
        assert_eq!(frame(0xc0, true, None, &[(1, 0x11), (2, 0x22), (3, 0x22)]).reduction(8), 1);
    }
}
