//! A stand-in for `libcuda.so.1` on a machine without a card: memory is the host's, kernels do nothing or are
//! run by the host, and what the driver was asked for is counted. Every PTX module is kept, once.
//!
//! A program gets it when a folder that has this library under the driver's name comes first in
//! `LD_LIBRARY_PATH`. Where kernels do nothing no value that is read was computed, so a check of results must
//! fail there.
//!
//! | variable | meaning | without it |
//! |---|---|---|
//! | `CUDA_DOUBLE_FOLDER` | modules are written there as `HASH.ptx`, counts of each process as `PID.json` | nothing is kept |
//! | `CUDA_DOUBLE_CAPABILITY` | compute capability of the cards: 80, 90, 100 | 90 |
//! | `CUDA_DOUBLE_DEVICES` | number of cards | 1 |
//! | `CUDA_DOUBLE_MEMORY` | bytes of memory of a card; what is beyond is refused | 80 GiB |
//! | `CUDA_DOUBLE_COPIES` | `drop`: what the host sends is dropped and memory stays zero. Otherwise what one buffer left is read as another's numbers, and may be no number | copies are made |
//! | `CUDA_DOUBLE_COMPILED` | kernels are run: each module as C, which `cc` compiles into this folder | kernels do nothing |
//! | `CUDA_DOUBLE_ORDER` | `reversed`: threads and blocks run from the last to the first | from the first to the last |

mod driver;
mod execution;
mod launches;
mod memory;
mod program;
mod record;
mod settings;
mod status;
mod translation;
