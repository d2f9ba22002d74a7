//! The one grammar: it writes captions and questions, and reads them again.
//!
//! Every sentence is a line of a table; writing fills its slots, reading takes them out. A caption is right
//! if the scene that it describes is the scene of the image, whichever of its captions was written.
//!
//! ```
//! use blip2_scenes::grammar::{captions, parse};
//! let scene = parse("a dog right of two cats on green").unwrap();
//! assert_eq!(parse("two cats left of a dog on green"), Some(scene));
//! assert_eq!(captions(&scene), ["two cats left of a dog on green", "a dog right of two cats on green"]);
//! assert_eq!(parse("a dog right of on green"), None);
//! ```

mod caption;
mod pattern;
mod question;

pub use caption::{captions, parse, things_agree};
pub use question::{Question, QuestionKind, answerable};
