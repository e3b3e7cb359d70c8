# The launcher of the flex template: the worker's image with Google's launcher in it. See docs/dataflow.md.
#
#   docker build -f infra/dataflow/template.Dockerfile --build-arg WORKER=IMAGE:TAG --build-arg LAUNCHER=BASE:TAG .
#
# root: the launcher's virtual machine starts it as root.
ARG WORKER
ARG LAUNCHER
FROM ${LAUNCHER} AS launcher

FROM ${WORKER}
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/archon/infra/dataflow/template.py
ENTRYPOINT ["/opt/google/dataflow/python_template_launcher"]
