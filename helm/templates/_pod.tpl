{{/*
The pod of a component. Call with
  root       the chart
  component  embedded, broker, ws, http or quic
  values     the component's values
  grace      what a stop may take in all
  preStop    whether the pod is in a Service that clients come by
*/}}
{{- define "chappe.pod" -}}
metadata:
  labels:
    {{- include "chappe.selector" . | nindent 4 }}
    {{- with .values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/config: {{ include "chappe.checksum" .root }}
    {{- with .values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  terminationGracePeriodSeconds: {{ .grace }}
  {{- include "chappe.pod.common" .root | nindent 2 }}
  {{- include "chappe.pod.placement" . | nindent 2 }}
  containers:
    - name: chappe
      {{- include "chappe.container.common" .root | nindent 6 }}
      args:
        - serve
        - --config=/etc/chappe/chappe.toml
        {{- if eq .component "embedded" }}
        {{- range .root.Values.embedded.channels }}
        - --channel={{ . }}
        {{- end }}
        {{- else }}
        - --role={{ eq .component "broker" | ternary "broker" (printf "gateway-%s" .component) }}
        {{- end }}
      env:
        {{- include "chappe.env" . | nindent 8 }}
      ports:
        {{- include "chappe.ports" . | nindent 8 }}
      startupProbe:
        httpGet: {path: /livez, port: admin}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: {{ max 1 (div (add (.values.startupSeconds | default 300) 4) 5) }}
      livenessProbe:
        # Whether the process answers, and nothing that it depends on.
        httpGet: {path: /livez, port: admin}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 2
      {{- if and .preStop .root.Values.stop.preStopSeconds }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ .root.Values.stop.preStopSeconds }}}
      {{- end }}
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/chappe/chappe.toml, subPath: chappe.toml, readOnly: true}
        - {name: data, mountPath: /var/lib/chappe}
        {{- include "chappe.mounts" . | nindent 8 }}
  volumes:
    - name: config
      configMap: {name: {{ include "chappe.fullname" .root }}}
    {{- if ne .component "embedded" }}
    - name: data
      emptyDir: {sizeLimit: 64Mi}
    {{- end }}
    {{- include "chappe.volumes" . | nindent 4 }}
{{- end }}

{{/* What every pod of the chart is not allowed to do. */}}
{{- define "chappe.pod.common" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.serviceAccountName }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  # Not at every start: it would take long, and open the mode of the secret in the data directory.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "chappe.container.common" -}}
image: {{ include "chappe.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  privileged: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "chappe.pod.placement" -}}
{{- $selector := include "chappe.selector" (pick . "root" "component") -}}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $spread := .root.Values.spread }}
{{- if and (ne .component "embedded") (or $spread.zone $spread.host) }}
topologySpreadConstraints:
  {{- $component := .component }}
  {{- range $key, $unsatisfiable := dict "topology.kubernetes.io/zone" $spread.zone "kubernetes.io/hostname" $spread.host }}
  {{- if $unsatisfiable }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: {{ $unsatisfiable }}
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
    {{- if ne $component "broker" }}
    # The pods of one version among themselves: those that go do not count.
    matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "chappe.ports" -}}
{{- if has .component (list "embedded" "ws" "http") }}
- {name: {{ eq .component "ws" | ternary "ws" "http" }}, containerPort: 7400, protocol: TCP}
{{- end }}
{{- if has .component (list "embedded" "quic") }}
- {name: quic, containerPort: 7400, protocol: UDP}
{{- end }}
{{- if eq .component "broker" }}
- {name: uplink, containerPort: 7402, protocol: TCP}
{{- end }}
- {name: admin, containerPort: 7401, protocol: TCP}
{{- end }}
