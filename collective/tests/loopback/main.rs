//! Members over loopback. One program for all, since it is what they share that takes long to build.

mod exchanging;
mod probe;
