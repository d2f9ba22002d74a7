//! Compiles the `.proto` files in Rust: no `protoc` is needed.

const FILES: [&str; 3] =
    ["proto/blip2/v1/coordinator.proto", "proto/blip2/v1/exchange.proto", "proto/blip2/v1/leases.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".blip2.v1.Chunk.data")
        .bytes(".blip2.v1.StateChunk.data")
        .bytes(".blip2.v1.ProbeChunk.data")
        .compile_fds(descriptors)?;
    Ok(())
}
