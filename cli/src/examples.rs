//! An example or two of every command, for its help and its manual page.

/// The commands with their examples, as they are typed after `blip2`.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "quickstart",
        &["quickstart", "quickstart --with vqa", "quickstart --corpus emoji --out /tmp/first --device cuda"],
    ),
    ("train", &["train --config mine.toml --workers 4", "train --config mine.toml --workers 2 --resume"]),
    (
        "coordinator",
        &[
            "coordinator --config mine.toml --token-file token --listen 10.0.0.1:7100",
            "coordinator --config mine.toml --token-file token --listen 10.0.0.9:7100 --standby",
            "coordinator --config mine.toml --token-file token --listen '[::]:7100' --advertise http://HOST:7100",
        ],
    ),
    (
        "worker",
        &[
            "worker --coordinator http://10.0.0.1:7100 --token-file token --listen 10.0.0.2:7200",
            "worker --coordinator 'http://[fd00::1]:7100' --token-file token --listen '[fd00::2]:7200'",
        ],
    ),
    (
        "plan",
        &[
            "plan --config configs/pretrain-stage1-vit-g.toml --gpu a100-40g --days 6",
            "plan --config mine.toml --gpus 16 --gpu h100 --network 100Gbps --price 2.5",
            "plan --config mine.toml --peak-tflops 200 --memory 32GB --bandwidth 1TB/s",
            "plan --config mine.toml --kubernetes > requests.yaml",
        ],
    ),
    (
        "doctor",
        &[
            "doctor --config mine.toml",
            "doctor --config mine.toml --workers 8 --json",
            "doctor --config mine.toml --coordinator http://10.0.0.1:7100 --token-file token --listen 10.0.0.2:7200",
        ],
    ),
    (
        "status",
        &[
            "status runs/mine",
            "status runs/mine --watch",
            "status http://10.0.0.1:7100 --token-file token --watch",
        ],
    ),
    ("stop", &["stop runs/mine", "stop http://10.0.0.1:7100 --token-file token"]),
    ("trace", &["trace runs/mine", "trace http://10.0.0.1:7100 --token-file token --out /tmp/trace.json"]),
    ("report", &["report runs/mine", "report s3://bucket/runs/mine --out mine.html"]),
    ("checkpoint ls", &["checkpoint ls runs/mine", "checkpoint ls s3://bucket/runs/mine --json"]),
    ("checkpoint verify", &["checkpoint verify runs/mine"]),
    (
        "checkpoint digest",
        &["checkpoint digest runs/mine", "checkpoint digest runs/mine/checkpoints/00000300-000001"],
    ),
    (
        "checkpoint export",
        &[
            "checkpoint export runs/mine --out export",
            "checkpoint export runs/mine --out qformer.pth --layout lavis --dtype f16",
            "checkpoint export runs/mine --out adapter --layout peft",
        ],
    ),
    ("checkpoint import", &["checkpoint import runs/mine --from models/blip2-opt-2.7b --config mine.toml"]),
    ("audit", &["audit runs/mine", "audit --simulate"]),
    (
        "eval retrieval",
        &[
            "eval retrieval --model runs/mine --data 'held-out/*.parquet'",
            "eval retrieval --model retriever --data coco_karpathy_test.json --images coco --out recalls",
        ],
    ),
    (
        "eval caption",
        &[
            "eval caption --model runs/mine --data held-out.parquet --json",
            "eval caption --model export --data captions.jsonl --out captions --report captions.html",
            "eval caption --model export --data coco_karpathy_test.json --images coco --out captions --workers 2",
        ],
    ),
    (
        "eval vqa",
        &[
            "eval vqa --model runs/mine --data held-out.parquet",
            "eval vqa --model export --data questions.csv --out answers --report answers.html",
            "eval vqa --model export --data mine.parquet --column question=asked --column answers=said",
            "eval vqa --model export --data annotations.json --questions questions.json --images val2014 --preset lavis",
        ],
    ),
    ("eval worker", &["eval worker --coordinator http://10.0.0.1:7200 --token-file token"]),
    ("eval itm", &["eval itm --model retriever --data captions.jsonl --out pairs"]),
    (
        "eval score",
        &[
            "eval score --task vqa --results answers.json --references annotations.json --mode lavis",
            "eval score --task gqa --results mine.json --references gqa.json --against theirs.json",
            "eval score --task caption --results captions.json --references captions_val2014.json",
            "eval score --task retrieval --results cosine.npy --references coco.json --json",
        ],
    ),
    (
        "generate",
        &[
            "generate --model export --image a.jpg b.png --beams 5",
            "generate --model export --image a.jpg --prompt Photo --sample --samples 3",
            "generate --model export --image a.jpg --question 'What is the dog doing?'",
        ],
    ),
    (
        "models get",
        &[
            "models get bert-base-uncased",
            "models get facebook/opt-350m --out models/opt-350m",
            "models get OWNER/NAME --file model.Q4_1.gguf",
        ],
    ),
    (
        "models check",
        &[
            "models check --config mine.toml",
            "models check --config mine.toml --set model.folder=models/blip2-opt-2.7b",
        ],
    ),
    ("models list", &["models list"]),
    ("devices", &["devices", "devices --json"]),
    ("chat", &["chat --model export --image a.jpg"]),
    (
        "corpus ingest",
        &[
            "corpus ingest --from webdataset --source 's3://bucket/laion/*.tar' --out s3://bucket/corpus/laion",
        ],
    ),
    ("corpus inspect", &["corpus inspect 'data/*.parquet' --out corpus.html"]),
    ("corpus verify", &["corpus verify data", "corpus verify --quick s3://bucket/corpus/laion"]),
    ("corpus plan", &["corpus plan --config mine.toml"]),
    (
        "curate",
        &[
            "curate --config configs/curate-quickstart.toml",
            "curate --config pool.toml --listen 10.0.0.1:7300 --token-file token --workers 0",
        ],
    ),
    ("curate worker", &["curate worker --coordinator http://10.0.0.1:7300 --token-file token"]),
    ("curate reselect", &["curate reselect --from curated --out curated-unique --dedup near"]),
    ("curate report", &["curate report curated --out curation.html"]),
    (
        "config show",
        &["config show --config mine.toml", "config show --config mine.toml --set stage1.steps=10"],
    ),
    ("config schema", &["config schema > blip2.schema.json"]),
    ("bench allreduce", &["bench allreduce --members 2 --wire bf16"]),
    ("bench coordinator", &["bench coordinator --members 2,8,32", "bench coordinator --members 256 --json"]),
    (
        "bench curate",
        &[
            "bench curate --config configs/curate-quickstart.toml --pictures 64",
            "bench curate --preset blip-base --pictures 16",
        ],
    ),
    ("bench dedup", &["bench dedup --rows 1000000 --near-bits 2"]),
    ("bench encode", &["bench encode --preset vit-g --batch 4"]),
    ("bench loader", &["bench loader --files assets/corpus/train-00000.parquet --size 224"]),
    (
        "bench step",
        &[
            "bench step --preset stage1-vit-g --device cuda --batch 104",
            "bench step --preset caption-vit-g --parameters-only --members 2",
        ],
    ),
    ("bench generate", &["bench generate --model export --batch 4", "bench generate --dtype int8"]),
    (
        "completions",
        &[
            "completions bash > ~/.local/share/bash-completion/completions/blip2",
            "completions zsh > ~/.zfunc/_blip2",
            "completions fish > ~/.config/fish/completions/blip2.fish",
        ],
    ),
    ("man", &["man ~/.local/share/man/man1"]),
];

/// The examples of a command.
pub(crate) fn of(path: &str) -> Option<String> {
    let (_, examples) = EXAMPLES.iter().find(|(command, _)| *command == path)?;
    let lines: Vec<String> = examples.iter().map(|example| format!("  blip2 {example}")).collect();
    Some(format!("Examples:\n{}", lines.join("\n")))
}

#[cfg(test)]
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    EXAMPLES.iter().flat_map(|(command, examples)| examples.iter().map(move |example| (*command, *example)))
}
