# docker build -t person-search . && docker run --rm -v "$PWD:/photos" person-search \
#     --ckpt /photos/cuhk_957.pth --query /photos/photo.jpg --gallery /photos/pictures --out /photos/found
FROM python:3.12-slim
WORKDIR /person-search
COPY requirements.txt requirements-heif.txt ./
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
    -r requirements.txt -r requirements-heif.txt
COPY . .
ENTRYPOINT ["python", "demo.py"]
