{{/* How many pods of a component an eviction may take at once. */}}
{{- define "chappe.budget" }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  labels:
    {{- include "chappe.labels" .of | nindent 4 }}
spec:
  maxUnavailable: {{ .values.maxUnavailable }}
  # A pod that is not ready serves nobody, and holds up no drain of its node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "chappe.selector" .of | nindent 6 }}
{{- end }}
