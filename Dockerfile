# syntax=docker/dockerfile:1
# The worker, for CPU and GPU alike: PyPI's wheels of torch for Linux bring CUDA's runtime libraries with them, so a
# slim Python is base enough. The driver comes from the host, by the NVIDIA container toolkit (`docker run --gpus all`).

FROM python:3.11-slim-bookworm AS requirements
COPY pyproject.toml /
# The dependencies alone, in a stage of their own: the layer below is built anew when they change, and not when the
# version or a lint rule in the same file does.
RUN python - <<'EOF'
import pathlib, tomllib
project = tomllib.loads(pathlib.Path("/pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
lines = project["dependencies"] + extras["inference"] + extras["tracing"]
pathlib.Path("/requirements.txt").write_text("\n".join(lines) + "\n")
EOF

FROM python:3.11-slim-bookworm
# A number, so that Kubernetes can tell that it is not root; with a name and a home, for torch asks for both.
RUN useradd --uid 10001 --user-group --create-home worker \
    && install --directory --owner=worker --group=worker /var/cache/huggingface
# Mount a volume here, or every new container downloads its checkpoints again.
ENV HF_HOME=/var/cache/huggingface

# Several gigabytes, nearly all of it torch and CUDA: below the code, which changes more often. There is no compiler.
COPY --from=requirements /requirements.txt /build/
COPY constraints.txt /build/
RUN pip install --no-cache-dir --only-binary :all: -c /build/constraints.txt -r /build/requirements.txt

COPY pyproject.toml README.md LICENSE /build/
COPY schemas /build/schemas
COPY worker /build/worker
RUN pip install --no-cache-dir -c /build/constraints.txt '/build[inference,tracing]' && pip check

USER 10001:10001
WORKDIR /home/worker
# Exec form: the worker is process 1 and gets SIGTERM itself, at which it drains.
ENTRYPOINT ["nlp-worker"]
CMD ["--help"]
