-- No further unit starts; those in flight come to rest.
obj.spec.mode = "Paused"
return obj
