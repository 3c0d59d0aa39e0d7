# Two images from one file: `--target streamer` holds no torch, `--target trainer` does.
# The registry of models is written to /var/lib/castloop, which belongs to the user the services run as.
FROM python:3.11.14-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --system --uid 10001 --user-group --no-create-home castloop \
    && install --directory --owner=castloop --group=castloop /var/lib/castloop
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY streamer streamer
COPY trainer trainer
RUN pip install --constraint constraints.txt .

FROM base AS streamer
COPY configs configs
USER castloop
EXPOSE 9101
ENTRYPOINT ["streamer"]
CMD ["run", "-c", "/app/configs/streamer.yaml"]

FROM base AS trainer
# Empty: the default index, whose Linux build of torch carries CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --constraint constraints.txt --no-deps --index-url "$TORCH_INDEX" torch; \
    fi \
    && pip install --constraint constraints.txt '.[train]'
COPY configs configs
# The path of the file goes from /app/configs, where this user must not write.
ENV CASTING_REGISTRY__PATH=/var/lib/castloop/registry
USER castloop
VOLUME /var/lib/castloop
EXPOSE 9102
ENTRYPOINT ["trainer"]
CMD ["run", "-c", "/app/configs/trainer.yaml"]
