{{- /* Labels that tell the operator's pods from all others; they never change. */ -}}
{{- define "runnerhub-operator.selector" -}}
app.kubernetes.io/name: runnerhub-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "runnerhub-operator.labels" -}}
{{- $own := include "runnerhub-operator.selector" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version) -}}
{{- toYaml (merge $own .Values.commonLabels) -}}
{{- end }}

{{- /* Name, labels and annotations of an object: (dict "root" . "name" "..." "namespace" "..." "annotations" (dict)) */ -}}
{{- define "runnerhub-operator.metadata" -}}
name: {{ .name }}
{{- with .namespace }}
namespace: {{ . }}
{{- end }}
labels:
  {{- include "runnerhub-operator.labels" .root | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Image reference: (dict "root" . "name" "postgres"). A released chart has the digests of its images in a file. */ -}}
{{- define "runnerhub-operator.image" -}}
{{- $image := .root.Values.image -}}
{{- $released := .root.Files.Get "files/digests.yaml" | fromYaml -}}
{{- $digest := get $image.digests .name | default (ternary (get $released .name) "" (empty $image.tag)) -}}
{{- if get $image.overrides .name -}}
{{ get $image.overrides .name }}
{{- else if $digest -}}
{{ $image.registry }}/{{ .name }}@{{ $digest }}
{{- else -}}
{{ $image.registry }}/{{ .name }}:{{ $image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- /* What the operator's pods and the test's pod have in common. */ -}}
{{- define "runnerhub-operator.pod" -}}
serviceAccountName: runnerhub-operator
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Variables that the operator and the test read. */ -}}
{{- define "runnerhub-operator.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: RUNNERHUB_WATCH_NAMESPACES
  value: {{ join "," .Values.watchNamespaces | quote }}
{{- end }}

{{- /* What the operator may do where clusters live; it can grant to pods only what it may do itself. */ -}}
{{- define "runnerhub-operator.rules" -}}
- apiGroups: [runnerhub.io]
  resources: [runnerhubclusters]
  verbs: [get, list, watch]
- apiGroups: [runnerhub.io]
  resources: [runnerhubclusters/status]
  verbs: [patch]
- apiGroups: [runnerhub.io]
  resources: [runnerhubclusters/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [configmaps, secrets, services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
- apiGroups: [apps]
  resources: [deployments, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list, watch, create, patch, delete]
# For spec.ingress.gateway, where the Gateway API is installed.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways]
  verbs: [get]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, watch, create, update, patch]
{{- end }}
