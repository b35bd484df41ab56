# CPU:  docker build -t headwater .
# CUDA: docker build -t headwater:cuda --build-arg TORCH_INDEX=https://pypi.org/simple .     (run it with --gpus all)
# Use:  docker run --rm -v "$PWD:/work" headwater downstream -u fbank -d emotion --demo
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 HEADWATER_CACHE=/cache HF_HOME=/cache/hub

COPY . /src
RUN grep '^torch==' /src/constraints.txt | xargs pip install --index-url "$TORCH_INDEX" \
    && pip install -c /src/constraints.txt "/src[demo,decode,mtl,onnx]" \
    && rm -rf /src \
    && useradd --create-home runner && mkdir -p /cache /work && chown runner /cache /work

USER runner
WORKDIR /work
VOLUME /cache
ENTRYPOINT ["headwater"]
CMD ["--help"]
